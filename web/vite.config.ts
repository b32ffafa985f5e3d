import { copyFileSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { brotliCompressSync, gzipSync } from "node:zlib";
import { defineConfig } from "vitest/config";

const OUT = "../src/headcount/web";

/** Adds compressed forms beside each file, which the API serves to browsers that accept them, and licences. */
const compressed = {
  name: "compressed",
  closeBundle(): void {
    for (const name of ["LICENSE", "NOTICE"])
      copyFileSync(`node_modules/swagger-ui-dist/${name}`, join(OUT, "assets", `swagger-ui-${name}.txt`));
    for (const entry of readdirSync(OUT, { recursive: true, withFileTypes: true })) {
      if (!/\.(html|js|css|svg)$/.test(entry.name)) continue;
      const file = join(entry.parentPath, entry.name);
      const bytes = readFileSync(file);
      writeFileSync(`${file}.br`, brotliCompressSync(bytes));
      writeFileSync(`${file}.gz`, gzipSync(bytes, { level: 9 }));
    }
  },
};

export default defineConfig({
  // Relative addresses, so that the page works behind a proxy that adds a path.
  base: "./",
  plugins: [compressed],
  build: {
    outDir: OUT,
    emptyOutDir: true,
    target: "es2022",
    // Nothing inline: the server sends a strict content security policy.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    // The map library is one large file, loaded after the counts are on the page.
    chunkSizeWarningLimit: 1600,
    rolldownOptions: {
      input: ["index.html", "me.html", "docs.html", "privacy.html"],
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
