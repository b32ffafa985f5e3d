// Node-RED's settings: this machine only, no editor with HEADLESS=1, and the variables of the flows.
const given = process.env;
given.HEADCOUNT_HOST ??= "127.0.0.1";
given.HEADCOUNT_PORT ??= "1883";
given.HEADCOUNT_BROKER ??= `mqtt://${given.HEADCOUNT_HOST}:${given.HEADCOUNT_PORT}`;
given.HEADCOUNT_URL ??= "http://127.0.0.1:8080";
given.HEADCOUNT_SITE ??= "ul";
given.HEADCOUNT_PHONES ??= "30";
given.HEADCOUNT_CARS ??= "12";
// the middle of the site; the default is that of the site that comes with headcount
given.HEADCOUNT_LAT ??= "52.6751";
given.HEADCOUNT_LON ??= "-8.5711";
given.CAR_PARK ??= "car-park-set-down";
given.CAR_PARK_SPACES ??= "16";
given.ALERT_HOST ??= "127.0.0.1";
given.ALERT_PORT ??= "1884";

module.exports = {
  uiHost: "127.0.0.1",
  uiPort: Number(given.PORT ?? 1880),
  disableEditor: given.HEADLESS === "1",
  credentialSecret: false, // the credentials of these flows are for trying them out
  telemetry: { enabled: false, updateNotification: false },
  editorTheme: { tours: false, projects: { enabled: false } },
  logging: { console: { level: "info", metrics: false, audit: false } },
};
