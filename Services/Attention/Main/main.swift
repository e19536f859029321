import AttentionService
import ServiceSupport

ServiceProcess.run(AttentionService.options, simulates: ServiceInputs.isEmulated) { values, loop in
    try await AttentionService.start(values, loop)
}
