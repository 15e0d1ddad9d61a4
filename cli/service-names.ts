// Names for services that are created without one: two words that are easy to say.

const QUALITIES =
  'able bold brave bright calm clever eager fair fast fine fond free fresh glad kind keen light lively loyal merry mild neat noble proud quick quiet ready sharp shy smart solid sunny swift warm wise witty';
const ANIMALS =
  'ant badger bear beaver bee bison crane crow deer dove duck eagle falcon finch fox goose hare hawk heron horse ibex jay koala lark lynx mole moose newt otter owl panda puma raven robin seal stork swan tiger wolf wren';

/** `random` gives numbers from 0 to 1. */
export function randomServiceName(random: () => number): string {
  const pick = (words: string) => {
    const list = words.split(' ');
    return list[Math.floor(random() * list.length)] as string;
  };
  return `${pick(QUALITIES)}_${pick(ANIMALS)}${Math.floor(random() * 1000)}`;
}
