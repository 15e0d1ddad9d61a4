// What makes the credentials of a service acceptable. No part of them is ever in a message.

import { invalidField } from './errors.ts';
import type { RegistryAuth, ServiceSpec } from './generated/objects.ts';
import { parseImageReference } from './image-reference.ts';

// Tokens of cloud registries have some 4 KiB.
const CREDENTIAL_LENGTH_MAX = 32 * 1024;

/** Throws `invalid-argument` on the first field that is wrong. Nothing given is nothing wrong. */
export function validateRegistryAuth(auth: RegistryAuth | undefined, spec: ServiceSpec): void {
  if (auth === undefined) return;
  const { registry } = parseImageReference(spec.task.container.image);
  if (auth.registry !== registry)
    throw invalidField(
      'registry-auth',
      `credentials for ${JSON.stringify(auth.registry)} are not for the registry of the image, ${registry}`,
    );
  const { username, password, identityToken } = auth;
  if (identityToken === '' && username === '')
    throw invalidField('registry-auth', 'must have a user name, or an identity token');
  for (const [name, value] of Object.entries({ username, password, identityToken }))
    if (value.length > CREDENTIAL_LENGTH_MAX)
      throw invalidField('registry-auth', `${name} is longer than ${CREDENTIAL_LENGTH_MAX} characters`);
}
