/** The machine that tests of telemetry are about. */

import type { VmFacts } from '../../src/telemetry/vm-facts.ts'

export const VM: VmFacts = {
  cpuArchitecture: 'x86_64',
  osVersion: 'Linux:Ubuntu-22.4.0',
  ramMib: 7936,
  processors: 2,
  containerId: 'a1b2c3d4-0000-4000-8000-00000000abcd',
  tenantName: '0f1e2d3c-1111-4222-8333-444455556666',
  roleName: 'demo-vm',
  roleInstanceName: '_demo-vm',
  subscriptionId: '11111111-2222-3333-4444-555555555555',
  resourceGroupName: 'demo-rg',
  vmId: '99999999-8888-4777-8666-555555555555',
  imageOrigin: 1,
}

/** A log event as an earlier agent would write it. */
export function logEvent(changes: Readonly<Record<string, unknown>> = {}) {
  return {
    EventLevel: 'INFO',
    Message: 'what happened',
    Version: '1.0.45',
    TaskName: 'start',
    EventPid: '742',
    EventTid: '00000742',
    OperationId: 'proxy_server',
    TimeStamp: '2026-01-02T03:04:05.678',
    ...changes,
  }
}

/** A status event likewise. */
export function statusEvent() {
  return {
    extension: { name: 'azure-proxy-agent', version: '1.0.45', is_internal: true, extension_type: 'Monitoring' },
    operation_status: {
      operation_success: true,
      operation: 'report_proxy_agent_status',
      task_name: 'loop_status',
      message: '{"version":"1.0.45"}',
      duration: 900012,
    },
    event_pid: '742',
    event_tid: '00000742',
    time_stamp: '2026-01-02T03:19:05.678',
  }
}
