import { defineConfig } from "vitest/config";

export default defineConfig({
  // Relative addresses, so that the page works behind a proxy that adds a path.
  base: "./",
  build: {
    outDir: "../src/headcount/web",
    emptyOutDir: true,
    target: "es2022",
    // Nothing inline: the server sends a strict content security policy.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    // The map library is one large file, loaded after the counts are on the page.
    chunkSizeWarningLimit: 1300,
    rolldownOptions: {
      input: ["index.html", "me.html"],
      output: {
        // Python's `mimetypes` and older proxies don't always know `.mjs`.
        assetFileNames: (asset) =>
          asset.names[0]?.endsWith(".mjs") ? "assets/[name]-[hash].js" : "assets/[name]-[hash][extname]",
      },
    },
  },
  server: { proxy: { "/v1": "http://127.0.0.1:8080" } },
  test: { include: ["src/**/*.test.ts"], environment: "node" },
});
