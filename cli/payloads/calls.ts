// Secrets and configs are asked for in the same way: one name for each call of either.

import type { Config, Secret } from '../../core/generated/objects.ts';
import type { PayloadKind } from '../../core/validate-payload.ts';
import type {
  CreatePayloadRequest,
  GetConfigResponse,
  GetSecretResponse,
  UpdatePayloadRequest,
} from '../../proto/generated/control.ts';
import type { Control } from '../connection.ts';

export type PayloadSource = Secret | Config;

/** One as a manager shows it; only configs come with their bytes. */
export interface FoundPayload
  extends Omit<GetSecretResponse, 'secret'>,
    Partial<Pick<GetConfigResponse, 'data'>> {
  readonly source: PayloadSource;
}

export interface PayloadCalls {
  create(request: CreatePayloadRequest): Promise<PayloadSource>;
  update(request: UpdatePayloadRequest): Promise<PayloadSource>;
  remove(name: string): Promise<unknown>;
  get(name: string): Promise<FoundPayload>;
  list(): Promise<readonly PayloadSource[]>;
}

export function payloadCalls(control: Control, kind: PayloadKind): PayloadCalls {
  if (kind === 'secret')
    return {
      create: async (request) => (await control.createSecret(request)).secret,
      update: async (request) => (await control.updateSecret(request)).secret,
      remove: (source) => control.removeSecret({ source }),
      get: async (source) => {
        const { secret, ...found } = await control.getSecret({ source });
        return { source: secret, ...found };
      },
      list: async () => (await control.listSecrets({})).secrets,
    };
  return {
    create: async (request) => (await control.createConfig(request)).config,
    update: async (request) => (await control.updateConfig(request)).config,
    remove: (source) => control.removeConfig({ source }),
    get: async (source) => {
      const { config, ...found } = await control.getConfig({ source });
      return { source: config, ...found };
    },
    list: async () => (await control.listConfigs({})).configs,
  };
}
