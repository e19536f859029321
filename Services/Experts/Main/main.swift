import ExpertsService
import ServiceSupport

ServiceProcess.run(ExpertsService.options, simulates: ExpertsService.needsSimulator) { values, loop in
    try await ExpertsService.start(values, loop)
}
