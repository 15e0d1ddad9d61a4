// What the agent tells Prometheus. Swarm's names where it has them.

import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { Engine } from './engine/engine.ts';
import type { Drift } from './network/overlay/overlay.ts';

const BUCKETS_S = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];

export class AgentMetrics {
  readonly registry = new Registry();
  readonly #containers: Histogram<'action'>;
  readonly #images: Histogram<'action'>;
  readonly #failures: Counter<'action'>;
  readonly #repairs: Counter<'kind' | 'problem'>;
  readonly #healthChecks: Counter;
  readonly #droppedLines: Counter;
  readonly #failedHealthChecks: Counter;
  readonly #removedImages: Counter<'reason'>;
  readonly #reclaimedBytes: Counter<'reason'>;

  constructor() {
    const registers = [this.registry];
    this.#containers = new Histogram({
      name: 'engine_daemon_container_actions_seconds',
      help: 'Operations on containers.',
      labelNames: ['action'],
      buckets: BUCKETS_S,
      registers,
    });
    this.#images = new Histogram({
      name: 'engine_daemon_image_actions_seconds',
      help: 'Operations on images.',
      labelNames: ['action'],
      buckets: BUCKETS_S,
      registers,
    });
    this.#failures = new Counter({
      name: 'tsswarm_engine_failures_total',
      help: 'Operations of the engine that failed.',
      labelNames: ['action'],
      registers,
    });
    this.#droppedLines = new Counter({
      name: 'tsswarm_log_lines_dropped_total',
      help: 'Lines of containers that the log driver did not take in time.',
      registers,
    });
    this.#healthChecks = new Counter({
      name: 'engine_daemon_health_checks_total',
      help: 'Health checks of containers.',
      registers,
    });
    this.#failedHealthChecks = new Counter({
      name: 'engine_daemon_health_checks_failed_total',
      help: 'Health checks of containers that failed.',
      registers,
    });
    this.#removedImages = new Counter({
      name: 'tsswarm_images_removed_total',
      help: 'Images that were removed because nobody needed them.',
      labelNames: ['reason'],
      registers,
    });
    this.#reclaimedBytes = new Counter({
      name: 'tsswarm_images_reclaimed_bytes_total',
      help: 'What removing them has freed.',
      labelNames: ['reason'],
      registers,
    });
    this.#repairs = new Counter({
      name: 'tsswarm_network_repairs_total',
      help: 'What audits found in the kernel that was not as it should be, and mended.',
      labelNames: ['kind', 'problem'],
      registers,
    });
  }

  countDroppedLines(lines: number): void {
    this.#droppedLines.inc(lines);
  }

  countHealthCheck(isSuccess: boolean): void {
    this.#healthChecks.inc();
    if (!isSuccess) this.#failedHealthChecks.inc();
  }

  countRemovedImage(reason: string, bytes: number): void {
    this.#removedImages.inc({ reason });
    this.#reclaimedBytes.inc({ reason }, bytes);
  }

  /** Counts what an audit of a network had to mend. */
  countRepairs(drift: readonly Drift[]): void {
    for (const { what, problem } of drift) this.#repairs.inc({ kind: what, problem });
  }

  /** Reads the containers' states at every scrape. */
  watch(engine: Engine): void {
    new Gauge({
      name: 'engine_daemon_container_states_containers',
      help: 'Containers by state.',
      labelNames: ['state'],
      registers: [this.registry],
      async collect() {
        this.reset();
        const states = { running: 0, created: 0, exited: 0 };
        for (const { status } of await engine.containers.list()) states[status.state]++;
        this.set({ state: 'running' }, states.running);
        this.set({ state: 'paused' }, 0);
        this.set({ state: 'stopped' }, states.created + states.exited);
      },
    });
  }

  observe(action: string, durationMs: number, ok: boolean): void {
    const histogram = /^(pull|push|import|export|remove-image)$/.test(action)
      ? this.#images
      : this.#containers;
    if (ok) histogram.observe({ action }, durationMs / 1000);
    else this.#failures.inc({ action });
  }
}
