import SamplerService
import ServiceSupport

ServiceProcess.run(SamplerService.options) { values, loop in try await SamplerService.start(values, loop) }
