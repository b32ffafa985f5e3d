// Node-RED's settings: headless where nobody looks, this machine only, and where headcount is.
const given = process.env;
given.HEADCOUNT_HOST ??= "127.0.0.1";
given.HEADCOUNT_PORT ??= "1883";
given.HEADCOUNT_PHONES ??= "30";
given.HEADCOUNT_CARS ??= "12";
// the middle of the site; the default is that of the site that comes with headcount
given.HEADCOUNT_LAT ??= "52.6751";
given.HEADCOUNT_LON ??= "-8.5711";

module.exports = {
  uiHost: "127.0.0.1",
  uiPort: Number(given.PORT ?? 1880),
  disableEditor: given.HEADLESS === "1",
  credentialSecret: false, // there are no credentials in these flows
  telemetry: { enabled: false, updateNotification: false },
  editorTheme: { tours: false, projects: { enabled: false } },
  logging: { console: { level: "info", metrics: false, audit: false } },
};
