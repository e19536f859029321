import AttentionService
import Emulation
import EventLoop
import ExpertsService
import Foundation
import GatewayService
import SamplerService
import ServiceSupport

// Called by the name of a service it is that service, so that an image holds one executable and links to it.
switch CommandLine.arguments.first?.split(separator: "/").last {
case "ironling-gateway":
    ServiceProcess.run(GatewayService.options) {
        try await GatewayService.start($0, $1, emulation: ServiceEmulation.gateway)
    }
case "ironling-attention":
    ServiceProcess.run(AttentionService.options) {
        try await AttentionService.start($0, $1, emulation: ServiceEmulation.attention)
    }
case "ironling-experts":
    ServiceProcess.run(ExpertsService.options) {
        try await ExpertsService.start($0, $1, simulation: ServiceEmulation.experts)
    }
case "ironling-sampler":
    ServiceProcess.run(SamplerService.options) {
        try await SamplerService.start($0, $1, emulation: ServiceEmulation.sampler)
    }
default: break
}
ServiceProcess.prepareSignals()
private let arguments = Array(CommandLine.arguments.dropFirst())
if ["--version", "version"].contains(arguments.first) {
    print(IronlingVersion.line("ironling"))
    exit(0)
}
private let isHelp = ["--help", "-h", "help"].contains(arguments.last ?? "help")
guard let command = subcommands.first(where: { arguments.starts(with: $0.words) }) else {
    if isHelp {
        print(usage(arguments.first))
    } else {
        ServiceProcess.complain(unknown(arguments))
    }
    exit(isHelp ? 0 : 64)
}
do {
    let environment = ProcessInfo.processInfo.environment
    guard
        let values = try command.options.parse(
            Array(arguments.dropFirst(command.words.count)), environment: environment)
    else {
        print(command.options.help)
        exit(0)
    }
    if values.isOn("version") {
        print(IronlingVersion.line("ironling"))
        exit(0)
    }
    for notice in OptionEnvironment(environment).notices(program: command.options.program) {
        ServiceProcess.complain(notice)
    }
    let loop = UVLoop()
    loop.start()
    Task(executorPreference: loop) {
        do {
            try await command.run(values, loop)
            if !command.staysUp { exit(0) }
        } catch {
            ServiceProcess.complain("\(command.options.program): \(ErrorText.sentence(error))")
            exit(error is UsageError ? 64 : 1)
        }
    }
    loop.join()
} catch {
    ServiceProcess.complain("\(command.options.program): \(ErrorText.sentence(error))")
    exit(64)
}
