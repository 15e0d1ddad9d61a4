// Image names as lists show them.

import { familiarRepository, parseImageReference } from '../../core/image-reference.ts';

/** "nginx:alpine" for "nginx:alpine@sha256:…"; a name without tag stays as it is. */
export function withoutDigest(image: string): string {
  const at = image.indexOf('@');
  if (at < 0) return image;
  const name = image.slice(0, at);
  return name.slice(name.lastIndexOf('/') + 1).includes(':') ? name : image;
}

/** Repository and tag or digest; what cannot be read as a name is shown whole. */
export function splitImageName(image: string): { repository: string; tag: string; digest: string } {
  try {
    const { registry, repository, tag, digest } = parseImageReference(image);
    return {
      repository: familiarRepository(registry, repository),
      tag: tag ?? '<none>',
      digest: digest ?? '<none>',
    };
  } catch {
    return { repository: image, tag: '<none>', digest: '<none>' };
  }
}
