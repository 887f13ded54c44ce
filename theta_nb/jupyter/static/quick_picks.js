// Sets of parameters that people mean often: "all attention", "all biases", a range of layers.

const KINDS = [
  ["all attention", /(?:^|[._/])(?:self_?)?(?:attn|attention)(?:[._/]|$)|(?:^|[._/])[qkvo]_proj(?:[._/]|$)/i],
  ["all feed-forward", /(?:^|[._/])(?:mlp|ffn|feed_forward|intermediate|fc\d?|up_proj|down_proj|gate_proj)(?:[._/]|$)/i],
  ["all norms", /norm|(?:^|[._/])(?:ln|bn|gn)_?\w{0,2}(?:[._/]|$)/i],
  ["all embeddings", /embed|(?:^|[._/])(?:wte|wpe)(?:[._/]|$)/i],
  ["all heads", /(?:^|[._/])(?:lm_head|head|classifier|pooler|score)\d?(?:[._/]|$)/i],
  ["all biases", /bias$/i],
  ["all weights", /weight$/i],
];

/**
 * @param {{names: string[], badge: number[], badges: string[], block: number[], blocks: string[]}} index
 * @returns {Array<{label: string, items: Array<{name: string, leaves: number[]}>}>} only sets that are not empty
 */
export function quickPicks(index) {
  const leaves = (test) => index.names.map((_, i) => i).filter(test);
  const states = index.badges.map((badge, at) => ({ name: `all ${badge}`, leaves: leaves((i) => index.badge[i] === at) }));
  const kinds = KINDS.map(([name, pattern]) => ({ name, leaves: leaves((i) => pattern.test(index.names[i])) }));
  const groups = [
    { label: "by what happened", items: states },
    { label: "by kind", items: kinds },
    { label: "by layer", items: layerPicks(index) },
  ];
  return groups.map(({ label, items }) => ({ label, items: items.filter((item) => item.leaves.length) })).filter(({ items }) => items.length);
}

/** Thirds of every stack of layers, and each layer. */
function layerPicks(index) {
  const stacks = new Map();
  index.blocks.forEach((block, at) => {
    const found = /^(.*?)\[?(\d+)\]?$/.exec(block);
    if (!found) return;
    if (!stacks.has(found[1])) stacks.set(found[1], []);
    stacks.get(found[1]).push([Number(found[2]), at]);
  });
  const items = [];
  for (const [stack, layers] of stacks) {
    layers.sort((a, b) => a[0] - b[0]);
    const within = (some) => {
      const blocks = new Set(some.map(([, at]) => at));
      return index.names.map((_, i) => i).filter((i) => blocks.has(index.block[i]));
    };
    const name = (some) => `${stack}${some[0][0]}${some.length > 1 ? `–${some.at(-1)[0]}` : ""}`;
    const third = Math.ceil(layers.length / 3);
    if (layers.length >= 3) {
      for (let at = 0; at < layers.length; at += third) {
        const some = layers.slice(at, at + third);
        if (some.length > 1) items.push({ name: name(some), leaves: within(some) });
      }
    }
    for (const layer of layers.slice(0, 200)) items.push({ name: name([layer]), leaves: within([layer]) });
  }
  return items;
}
