import SamplerService
import ServiceSupport

ServiceProcess.run(SamplerService.options, simulates: ServiceInputs.isEmulated) { values, loop in
    try await SamplerService.start(values, loop)
}
