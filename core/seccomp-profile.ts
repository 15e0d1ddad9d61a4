// Seccomp profiles in Docker's JSON format, and the rules that one comes to for a container: which of its rules hold
// depends on capabilities, architecture and kernel. Pure.

export interface SeccompCondition {
  readonly caps?: readonly string[];
  readonly arches?: readonly string[];
  /** "4.8" */
  readonly minKernel?: string;
}

export interface ProfileRule {
  readonly name?: string;
  readonly names?: readonly string[];
  readonly action: string;
  readonly errnoRet?: number;
  readonly args?: readonly object[] | null;
  readonly includes?: SeccompCondition;
  readonly excludes?: SeccompCondition;
}

export interface ProfileDocument {
  readonly defaultAction: string;
  readonly defaultErrnoRet?: number;
  readonly architectures?: readonly string[];
  readonly archMap?: readonly {
    readonly architecture: string;
    readonly subArchitectures?: readonly string[];
  }[];
  readonly flags?: readonly string[];
  readonly syscalls?: readonly ProfileRule[];
}

/** As OCI runtimes take it. */
export interface ResolvedProfile {
  readonly defaultAction: string;
  readonly defaultErrnoRet?: number;
  readonly architectures?: readonly string[];
  readonly flags?: readonly string[];
  readonly syscalls: readonly object[];
}

export interface ProfilePlace {
  readonly capabilities: readonly string[];
  /** As in Go: "amd64". */
  readonly architecture: string;
  /** "6.1.0" */
  readonly kernel: string;
}

// Larger profiles are a mistake: a revision of a service carries it.
const PROFILE_CHARACTERS_MAX = 256 * 1024;
const NATIVE: Readonly<Record<string, string>> = { amd64: 'SCMP_ARCH_X86_64', arm64: 'SCMP_ARCH_AARCH64' };

/** Throws an Error that says what is wrong with the text. */
export function parseSeccompProfile(text: string): ProfileDocument {
  if (text.length > PROFILE_CHARACTERS_MAX)
    throw new Error(`the profile has more than ${PROFILE_CHARACTERS_MAX} characters`);
  const document = parseJson(text);
  if (!isAction(document.defaultAction))
    throw new Error('the profile needs a defaultAction such as SCMP_ACT_ERRNO');
  const { architectures = [], archMap = [], syscalls = [] } = document;
  if (architectures.length > 0 && archMap.length > 0)
    throw new Error('the profile has both architectures and archMap: only one may be given');
  for (const rule of syscalls) {
    const names = namesOf(rule);
    if (names.length === 0) throw new Error('a rule of the profile names no system call');
    if (rule.name !== undefined && rule.names !== undefined)
      throw new Error(`a rule of the profile has both name and names: ${names.join(', ')}`);
    if (!isAction(rule.action))
      throw new Error(`the rule for ${names[0]} has no action such as SCMP_ACT_ALLOW`);
  }
  return document;
}

function parseJson(text: string): ProfileDocument {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new Error(`the profile is no JSON: ${(error as Error).message}`);
  }
  const isObject = (candidate: unknown) =>
    typeof candidate === 'object' && candidate !== null && !Array.isArray(candidate);
  const fields = value as Readonly<Record<string, unknown>>;
  if (!isObject(value)) throw new Error('the profile is no JSON object');
  for (const key of ['architectures', 'archMap', 'syscalls', 'flags'])
    if (fields[key] !== undefined && fields[key] !== null && !Array.isArray(fields[key]))
      throw new Error(`${key} of the profile must be a list`);
  if (!((fields['syscalls'] ?? []) as unknown[]).every(isObject))
    throw new Error('syscalls of the profile must be a list of rules');
  // Lists that are null count as absent.
  return Object.fromEntries(
    Object.entries(fields).filter(([, field]) => field !== null),
  ) as unknown as ProfileDocument;
}

function isAction(text: unknown): boolean {
  return typeof text === 'string' && /^SCMP_ACT_[A-Z_]+$/.test(text);
}

function namesOf({ name, names }: ProfileRule): readonly string[] {
  return names ?? (name === undefined ? [] : [name]);
}

/** The rules that hold at a place. */
export function resolveProfile(document: ProfileDocument, place: ProfilePlace): ResolvedProfile {
  const { defaultAction, defaultErrnoRet, flags, archMap = [], syscalls = [] } = document;
  const own = archMap.find(({ architecture }) => architecture === NATIVE[place.architecture]);
  const mapped = own === undefined ? [] : [own.architecture, ...(own.subArchitectures ?? [])];
  const architectures = document.architectures ?? mapped;
  return {
    defaultAction,
    ...(defaultErrnoRet !== undefined && { defaultErrnoRet }),
    ...(architectures.length > 0 && { architectures }),
    ...(flags !== undefined && { flags }),
    syscalls: syscalls
      .filter(({ includes, excludes }) => includesPlace(includes, place) && !excludesPlace(excludes, place))
      .map((rule) => ({
        names: namesOf(rule),
        action: rule.action,
        ...(rule.errnoRet !== undefined && { errnoRet: rule.errnoRet }),
        ...(rule.args && rule.args.length > 0 && { args: rule.args }),
      })),
  };
}

/** All that is asked for must be so. */
function includesPlace({ caps, arches, minKernel }: SeccompCondition = {}, place: ProfilePlace): boolean {
  return (
    (!arches?.length || arches.includes(place.architecture)) &&
    (!caps?.length || caps.every((name) => place.capabilities.includes(name))) &&
    (minKernel === undefined || minKernel === '' || isKernelFrom(place.kernel, minKernel))
  );
}

/** One of them is enough. */
function excludesPlace({ caps, arches, minKernel }: SeccompCondition = {}, place: ProfilePlace): boolean {
  return (
    (arches?.includes(place.architecture) ?? false) ||
    (caps?.some((name) => place.capabilities.includes(name)) ?? false) ||
    (minKernel !== undefined && minKernel !== '' && isKernelFrom(place.kernel, minKernel))
  );
}

/** True for "6.1.0" from "4.8". */
export function isKernelFrom(kernel: string, minimum: string): boolean {
  const [major = 0, minor = 0] = kernel.split('.').map((part) => Number.parseInt(part, 10));
  const [leastMajor = 0, leastMinor = 0] = minimum.split('.').map((part) => Number.parseInt(part, 10));
  return major > leastMajor || (major === leastMajor && minor >= leastMinor);
}
