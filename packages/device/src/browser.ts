export { type GeolocationOptions, positionOfGeolocation, watchGeolocation } from "./geolocation.js";
export { IndexedDbStorage } from "./indexeddb.js";
