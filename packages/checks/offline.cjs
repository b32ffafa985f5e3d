// @ts-check
/**
 * Lets the scorecard of Node-RED run without a network:
 * `node --require ./offline.cjs node_modules/.bin/node-red-dev validate --path PACKAGE`.
 *
 * The versions of Node-RED are the one in the folder NODE_RED, and the dependencies are those in the package's lock,
 * in the folder PACKAGE. Three checks have nothing to compare with and pass: unique names in the catalogue of Node-RED
 * (P08, N01), and newest versions of dependencies (D03).
 */
const axios = require("axios");
const npmCheck = require.resolve("npm-check");
const npmRemoteLs = require("npm-remote-ls");

const { version, engines } = require(`${process.env.NODE_RED}/package.json`);
const { packages } = require(`${process.env.PACKAGE}/package-lock.json`);

const ANSWERS = {
  "https://catalogue.nodered.org/catalogue.json": { modules: [] },
  "https://registry.npmjs.org/node-red": { "dist-tags": { latest: version }, versions: { [version]: { engines } } },
};
axios.get = async (/** @type {string} */ address) => ({ data: ANSWERS[address] });

const locked = Object.entries(packages).filter(([path]) => path);
npmRemoteLs.ls = (/** @type {unknown[]} */ ...given) =>
  given.at(-1)(locked.map(([path, { version }]) => `${path.split("node_modules/").at(-1)}@${version}`));

require.cache[npmCheck] = Object.assign(new module.constructor(npmCheck), {
  loaded: true,
  exports: async () => ({ get: () => [] }),
});
