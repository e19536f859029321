import GatewayService
import ServiceSupport

ServiceProcess.run(GatewayService.options) { values, loop in try await GatewayService.start(values, loop) }
