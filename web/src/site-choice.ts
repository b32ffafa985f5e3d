/** The choice of a site, where the server has several. */

import type { SiteSummary } from "./api";

/** The site to show: the wanted one, else the first; `notice` is set if the wanted one is not there. */
export function chooseSite(
  sites: readonly Pick<SiteSummary, "id" | "name">[],
  wanted: string | undefined,
): { id: string; notice?: string } | undefined {
  const [first] = sites;
  if (!first) return undefined;
  if (wanted === undefined || sites.some(({ id }) => id === wanted)) return { id: wanted ?? first.id };
  return { id: first.id, notice: `There is no site “${wanted}”, or it was removed. This is ${first.name}.` };
}
