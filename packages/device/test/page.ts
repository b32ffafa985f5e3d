/** A page that is a device. Its address has the configuration: `#{"mqtt": …, "site": …, "id": …, "secret": …}`. */
import { Device, FallbackTransport, HttpTransport, type Transport } from "@headcount/device";
import { IndexedDbStorage, watchGeolocation } from "@headcount/device/browser";
import { MqttTransport } from "@headcount/device/mqtt";

const { mqtt, ...identity } = JSON.parse(decodeURIComponent(location.hash.slice(1)));
const http = new HttpTransport({ ...identity, url: location.origin });
const transport: Transport = mqtt ? new FallbackTransport(new MqttTransport({ ...identity, url: mqtt }), http) : http;
const messages: string[] = [];
const device = new Device({
  transport,
  storage: new IndexedDbStorage(`headcount-${identity.id}`),
  showMessage: (text) => messages.push(text) > 0,
});
device.onChange(({ connection, problem }) => console.log(connection, problem));
await device.start();
watchGeolocation(device, { onError: ({ code, message }) => console.error(code, message) });
// for the test
Object.assign(window, { device, messages });
