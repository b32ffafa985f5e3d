import { defineConfig } from "vitest/config";

/** Far above what a test takes, also on a busy machine. */
const LIMIT_MS = 240_000;

export default defineConfig({
  test: {
    include: ["src/**/*.test.ts", "test/**/*.test.ts"],
    environment: "node",
    testTimeout: LIMIT_MS,
    hookTimeout: LIMIT_MS,
  },
});
