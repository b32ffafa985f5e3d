// Print the five busiest zones, live: node examples/counts.mjs [http://127.0.0.1:8080]

const base = process.argv[2] ?? "http://127.0.0.1:8080";
const { sites } = await (await fetch(`${base}/v1/sites`)).json();
const stream = await fetch(base + sites[0].links.stream);
const people = new Map();

let text = "";
for await (const piece of stream.body.pipeThrough(new TextDecoderStream())) {
  const lines = (text + piece).split("\n");
  text = lines.pop(); // an incomplete line waits for the rest
  for (const line of lines.filter((line) => line.startsWith("data: "))) {
    const update = JSON.parse(line.slice(6));
    for (const zone of update.zones ?? []) people.set(zone.zone, Number(zone.person.count) || 0); // "<5" and null become 0
    people.delete("site"); // the whole campus
    const busiest = [...people].sort(([a, n], [b, m]) => m - n || a.localeCompare(b)).slice(0, 5);
    console.log(update.at, busiest.map(([zone, count]) => `${zone} ${count}`).join("  "));
  }
}
