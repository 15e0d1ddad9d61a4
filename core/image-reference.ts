// Names of images, by the grammar that Docker and the registries share: [registry/]repository[:tag][@digest].

import { SwarmError } from './errors.ts';

export interface ImageReference {
  /** "docker.io" when the name says none. */
  readonly registry: string;
  /** "library/nginx" for Docker's official images. */
  readonly repository: string;
  /** "latest" when the name has neither tag nor digest. */
  readonly tag?: string;
  readonly digest?: string;
  /** In full: "docker.io/library/nginx:alpine". With tag and digest, both. */
  readonly normalized: string;
  /** As people write it: "nginx:alpine". */
  readonly familiar: string;
}

const DEFAULT_REGISTRY = 'docker.io';
const OFFICIAL_PREFIX = 'library/';
const NAME_LENGTH_MAX = 255;

const HOST_LABEL = '[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?';
const REGISTRY = new RegExp(`^(?:${HOST_LABEL}(?:\\.${HOST_LABEL})*|\\[[a-fA-F0-9:]+\\])(?::[0-9]+)?$`);
const REPOSITORY_PART = '[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*';
const REPOSITORY = new RegExp(`^${REPOSITORY_PART}(?:/${REPOSITORY_PART})*$`);
const TAG = /^\w[\w.-]{0,127}$/;
const DIGEST = /^sha256:[a-f0-9]{64}$/;

function invalid(text: string, problem: string): SwarmError {
  return new SwarmError('invalid-argument', `invalid reference format: ${problem}: ${JSON.stringify(text)}`);
}

/** True for "sha256:" and 64 lower-case hexadecimal digits. */
export function isDigest(text: string): boolean {
  return DIGEST.test(text);
}

/** Reads a name as Docker does. Throws `invalid-argument`. */
export function parseImageReference(text: string): ImageReference {
  if (/^[a-f0-9]{64}$/.test(text)) throw invalid(text, 'a repository cannot be named like an image id');
  const at = text.indexOf('@');
  const digest = at < 0 ? undefined : text.slice(at + 1);
  if (digest !== undefined && !isDigest(digest))
    throw invalid(text, 'digest must be sha256 and 64 hexadecimal digits');
  const { registry, rest } = splitRegistry(at < 0 ? text : text.slice(0, at));
  if (!REGISTRY.test(registry)) throw invalid(text, `registry ${JSON.stringify(registry)}`);

  const colon = rest.lastIndexOf(':');
  const name = colon < 0 ? rest : rest.slice(0, colon);
  const tag = colon < 0 ? (digest === undefined ? 'latest' : undefined) : rest.slice(colon + 1);
  if (name === '') throw invalid(text, 'no repository name');
  if (name !== name.toLowerCase()) throw invalid(text, 'repository name must be lowercase');
  if (!REPOSITORY.test(name)) throw invalid(text, `repository name ${JSON.stringify(name)}`);
  if (tag !== undefined && !TAG.test(tag)) throw invalid(text, `tag ${JSON.stringify(tag)}`);
  const repository = registry === DEFAULT_REGISTRY && !name.includes('/') ? OFFICIAL_PREFIX + name : name;
  if (registry.length + 1 + repository.length > NAME_LENGTH_MAX)
    throw invalid(text, `repository name is longer than ${NAME_LENGTH_MAX} characters`);

  const suffix = (tag === undefined ? '' : `:${tag}`) + (digest === undefined ? '' : `@${digest}`);
  return {
    registry,
    repository,
    ...(tag === undefined ? undefined : { tag }),
    ...(digest === undefined ? undefined : { digest }),
    normalized: `${registry}/${repository}${suffix}`,
    familiar: familiarRepository(registry, repository) + suffix,
  };
}

/** The first part is a registry when it cannot be a repository: a dot, a port, "localhost" or a capital letter. */
function splitRegistry(name: string): { registry: string; rest: string } {
  const slash = name.indexOf('/');
  const first = name.slice(0, Math.max(slash, 0));
  const isRegistry = /[.:]/.test(first) || first === 'localhost' || first !== first.toLowerCase();
  if (slash < 0 || !isRegistry) return { registry: DEFAULT_REGISTRY, rest: name };
  return { registry: first === 'index.docker.io' ? DEFAULT_REGISTRY : first, rest: name.slice(slash + 1) };
}

/** "nginx" for ("docker.io", "library/nginx"). */
export function familiarRepository(registry: string, repository: string): string {
  if (registry !== DEFAULT_REGISTRY) return `${registry}/${repository}`;
  const short = repository.slice(OFFICIAL_PREFIX.length);
  return repository.startsWith(OFFICIAL_PREFIX) && !short.includes('/') ? short : repository;
}
