"""How does the report look? One style sheet, for light and dark, wide and narrow."""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f6f5f2; --card: #ffffff; --sunk: #f1f0ec; --ink: #1d1b26; --quiet: #66626f; --rule: #dfdcd6;
  --coldstart: #5646d6; --evidence: #c2540a; --i2i2u: #16806f; --random: #85818c; --nobody: #e3e0da;
  --tint: #efedfc; --good: #146c43; --bad: #b3261e;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #131218; --card: #1c1b23; --sunk: #26242f; --ink: #eeecf4; --quiet: #a5a1b1; --rule: #383544;
    --coldstart: #9c90ff; --evidence: #f2994a; --i2i2u: #4fc7b1; --random: #8f8b9b; --nobody: #383544;
    --tint: #28243f; --good: #6fd3a0; --bad: #ff8a80;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink); -webkit-text-size-adjust: 100%;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
}
header, main, footer { max-width: 1080px; margin: 0 auto; padding: 0 20px; }
header { padding-top: 56px; }
.eyebrow { margin: 0; color: var(--coldstart); font-weight: 600; font-size: 14px; letter-spacing: .02em; }
h1 {
  margin: 8px 0 16px; font-size: clamp(32px, 6vw, 56px); line-height: 1.06; letter-spacing: -.03em;
  text-wrap: balance;
}
h2 { margin: 0 0 4px; font-size: 26px; line-height: 1.2; letter-spacing: -.02em; text-wrap: balance; }
h3 { margin: 0 0 6px; font-size: 17px; line-height: 1.3; }
p { margin: 0 0 14px; max-width: 72ch; }
.lead { font-size: 19px; color: var(--quiet); }
.note { color: var(--quiet); font-size: 14.5px; }
.state { font-weight: 600; margin: 0 0 24px; }
.state.good { color: var(--good); }
.state.bad { color: var(--bad); }
section { margin: 44px 0; }
.card {
  background: var(--card); border: 1px solid var(--rule); border-radius: 16px; padding: 24px; margin: 16px 0 0;
  min-width: 0;
}
.tiles { display: grid; gap: 16px; grid-template-columns: repeat(auto-fit, minmax(215px, 1fr)); }
.tiles .card { margin: 0; padding: 20px; }
.tiles strong { display: block; font-size: 34px; line-height: 1.15; letter-spacing: -.03em; white-space: nowrap; }
.tiles .first strong { color: var(--coldstart); }
.tiles span { display: block; color: var(--quiet); font-size: 14.5px; line-height: 1.4; margin-top: 6px; }
.pair {
  display: grid; gap: 16px; grid-template-columns: repeat(2, minmax(0, 1fr));
  margin-top: 16px;
}
.pair > .card { margin: 0; }
svg { display: block; width: 100%; height: auto; }
figure { margin: 0; }
figcaption { color: var(--quiet); font-size: 14.5px; margin-bottom: 14px; }
.card figure > svg { margin: 0 auto 14px; }
.pair figure > svg { max-width: 460px; }

svg text {
  font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; fill: var(--ink);
  font-variant-numeric: tabular-nums;
}
svg .tick, svg .quiet { fill: var(--quiet); }
svg .name, svg .label, svg .title { font-weight: 600; }
svg .grid { stroke: var(--rule); stroke-width: 1; stroke-dasharray: 2 4; }
svg .axis { stroke: var(--quiet); stroke-width: 1; }
svg .line { fill: none; stroke-width: 2.5; stroke-linejoin: round; }
svg .mark { stroke: var(--ink); stroke-width: 1.5; stroke-dasharray: 4 3; }
.coldstart { fill: var(--coldstart); stroke: var(--coldstart); }
.evidence { fill: var(--evidence); stroke: var(--evidence); }
.i2i2u { fill: var(--i2i2u); stroke: var(--i2i2u); }
.random { fill: var(--random); stroke: var(--random); }
.nobody { fill: var(--nobody); stroke: var(--nobody); }
path.coldstart, path.evidence, path.first, .first > path, .last > path, .nobody, g[clip-path] { stroke: none; }
text.name { stroke: none; }
svg text.coldstart { fill: var(--coldstart); }
svg text.evidence { fill: var(--evidence); }
svg text.i2i2u { fill: var(--i2i2u); }
svg text.random { fill: var(--quiet); }
g.first { fill: var(--coldstart); }
g.last { fill: var(--evidence); }
.waveform { height: 120px; }
svg .wave { fill: none; stroke-linecap: butt; }
svg .wave.first { stroke: var(--coldstart); }
svg .wave.last { stroke: var(--evidence); opacity: .45; }

.flow.down { display: none; max-width: 440px; }
.flow .topic rect { fill: var(--sunk); stroke: var(--rule); }
.flow .role rect { fill: var(--tint); stroke: var(--coldstart); stroke-width: 1.5; }
.flow .edge { fill: none; stroke: var(--coldstart); stroke-width: 1.75; stroke-dasharray: 6 4; }
.flow .edge.side { stroke: var(--random); }
.flow .head { fill: var(--quiet); }
@media (prefers-reduced-motion: no-preference) {
  .flow .edge { animation: along 1.4s linear infinite; }
  @keyframes along { to { stroke-dashoffset: -20; } }
}

.people {
  display: grid; grid-template-columns: minmax(0, 1.2fr) minmax(180px, 300px) 90px; gap: 10px 24px;
  align-items: center;
}
.people + .people { border-top: 1px solid var(--rule); margin-top: 16px; padding-top: 16px; }
.people p { margin: 0; color: var(--quiet); font-size: 14.5px; line-height: 1.4; }
.people h3 { margin: 0; }
.people strong { font-size: 30px; letter-spacing: -.03em; line-height: 1; }
.people small { display: block; color: var(--quiet); font-size: 13px; }

.wide { overflow-x: auto; }
table {
  border-collapse: collapse; width: 100%; font-size: 14.5px; line-height: 1.4;
  font-variant-numeric: tabular-nums;
}
caption { text-align: left; color: var(--quiet); padding-bottom: 6px; }
th, td {
  padding: 7px 12px 7px 0; border-top: 1px solid var(--rule); text-align: left; font-weight: 400;
  vertical-align: baseline;
}
thead th { border-top: 0; color: var(--quiet); font-size: 13px; }
tr > :last-child { padding-right: 0; }
.number { text-align: right; white-space: nowrap; }
td.bar { width: 42%; min-width: 64px; }
.meter { display: block; height: 10px; min-width: 2px; border-radius: 3px; background: var(--coldstart); }
tr.total .meter { background: var(--random); }
tbody th:has(.swatch) { white-space: nowrap; }
.swatch { display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin-right: 8px; }
.swatch.coldstart, .swatch.first { background: var(--coldstart); }
.swatch.evidence, .swatch.last { background: var(--evidence); }
.swatch.i2i2u { background: var(--i2i2u); }
.swatch.random { background: var(--random); }
.tags { list-style: none; display: flex; flex-wrap: wrap; gap: 8px; margin: 0 0 16px; padding: 0; }
.tags li {
  background: var(--tint); border-radius: 999px; padding: 3px 12px; font-size: 14.5px; overflow-wrap: anywhere;
}
.song { font-size: 28px; line-height: 1.2; letter-spacing: -.02em; margin: 0 0 10px; overflow-wrap: anywhere; }
th small { display: block; color: var(--quiet); font-size: 13px; }
pre {
  background: var(--sunk); border-radius: 10px; padding: 14px 16px; margin: 0 0 14px; overflow-x: auto;
  font: 14.5px/1.5 ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
}
footer { padding-top: 8px; padding-bottom: 56px; color: var(--quiet); font-size: 14px; }

@media (max-width: 760px) {
  header { padding-top: 32px; }
  header, main, footer { padding-left: 14px; padding-right: 14px; }
  .card { padding: 18px 16px; }
  .lead { font-size: 17px; }
  .pair { grid-template-columns: minmax(0, 1fr); }
  .tiles { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 10px; }
  .tiles .card { padding: 14px; }
  .tiles strong { font-size: 25px; }
  .tiles span { font-size: 13.5px; }
  .people { grid-template-columns: minmax(0, 1fr) auto; }
  .people > div:first-child { grid-column: 1 / -1; }
  .people small { display: none; }
  .flow.across { display: none; }
  .flow.down { display: block; }
  .waveform { height: 84px; }
  th, td { padding-right: 8px; }
  thead .number, tbody th:has(.swatch) { white-space: normal; }
}
@media print {
  body { background: none; }
  .card { break-inside: avoid; }
}
"""
