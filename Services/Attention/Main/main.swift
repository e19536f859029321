import AttentionService
import ServiceSupport

ServiceProcess.run(AttentionService.options) { values, loop in try await AttentionService.start(values, loop) }
