import GatewayService
import ServiceSupport

ServiceProcess.run(GatewayService.options, simulates: ServiceInputs.isEmulated) { values, loop in
    try await GatewayService.start(values, loop)
}
