import ExpertsService
import ServiceSupport

ServiceProcess.run(ExpertsService.options) { values, loop in try await ExpertsService.start(values, loop) }
