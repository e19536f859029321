import AttentionService
import EventLoop
import ExpertsService
import Foundation
import GatewayService
import SamplerService
import ServiceSupport

/// A subcommand of `ironling`; its name is one or two words.
private struct Subcommand: Sendable {
    let name: String
    let options: CommandLineOptions
    let staysUp: Bool
    let run: @Sendable (OptionValues, UVLoop) async throws -> Void

    var words: [String] { name.split(separator: " ").map(String.init) }

    /// The first sentence of what it does.
    var sentence: String {
        let text = options.summary.replacing("\n", with: " ")
        return String(text.firstRange(of: ". ").map { text[..<$0.lowerBound] + "." } ?? text[...])
    }
}

private let subcommands = [
    Subcommand(name: "up", options: UpCommand.options, staysUp: true) { try await UpCommand.run($0, $1) },
    Subcommand(name: "generate", options: GenerateCommand.options, staysUp: false) {
        try await GenerateCommand.run($0, $1)
    },
    Subcommand(name: "chat", options: ChatCommand.options, staysUp: false) { try await ChatCommand.run($0, $1) },
    Subcommand(name: "load", options: LoadCommand.options, staysUp: false) { try await LoadCommand.run($0, $1) },
    Subcommand(name: "trace", options: TraceCommand.options, staysUp: false) { try await TraceCommand.run($0, $1) },
    Subcommand(name: "requests", options: RequestsCommand.options, staysUp: false) {
        try await RequestsCommand.run($0, $1)
    },
    Subcommand(name: "health", options: HealthCommand.options, staysUp: false) { try await HealthCommand.run($0, $1) },
    Subcommand(name: "tokenize", options: TokenizeCommand.options, staysUp: false) { values, _ in
        try TokenizeCommand.run(values)
    },
    Subcommand(name: "perplexity", options: PerplexityCommand.options, staysUp: false) { values, _ in
        try PerplexityCommand.run(values)
    },
    Subcommand(name: "quantize", options: QuantizeCommand.options, staysUp: false) { values, _ in
        try QuantizeCommand.run(values)
    },
    Subcommand(name: "simulate moe", options: SimulateMoECommand.options, staysUp: false) { values, _ in
        try SimulateMoECommand.run(values)
    },
    Subcommand(name: "simulate pools", options: SimulatePoolsCommand.options, staysUp: false) { values, _ in
        try SimulatePoolsCommand.run(values)
    },
    Subcommand(name: "simulate step", options: SimulateStepCommand.options, staysUp: false) { values, _ in
        try SimulateStepCommand.run(values)
    },
    Subcommand(name: "simulate serve", options: SimulateServeCommand.options, staysUp: false) { values, _ in
        try SimulateServeCommand.run(values)
    },
    Subcommand(name: "simulate validate", options: ValidateCommand.options, staysUp: false) { values, _ in
        try ValidateCommand.run(values)
    },
    Subcommand(name: "simulate calibrate", options: CalibrateCommand.options, staysUp: false) { values, _ in
        try CalibrateCommand.run(values)
    },
]

/// The commands, or those that begin with `first` when there are any.
private func usage(_ first: String? = nil) -> String {
    let group = subcommands.filter { $0.words.first == first }
    let shown = group.isEmpty ? subcommands : group
    let width = shown.map(\.name.count).max() ?? 0
    let lines = shown.map { "  \($0.name)\(String(repeating: " ", count: width - $0.name.count))\t\($0.sentence)" }
    return "usage: ironling COMMAND [options]\n\n" + lines.joined(separator: "\n")
        + "\n\nironling COMMAND --help shows the options of a command.\n"
}

/// What is said to arguments that are no command.
private func unknown(_ arguments: [String]) -> String {
    let rest = subcommands.filter { $0.words.first == arguments.first }.compactMap(\.words.last)
    guard rest.isEmpty else {
        let name = arguments.count > 1 ? ", not \"\(arguments[1])\"" : ""
        return "ironling \(arguments[0]) is followed by one of \(rest.joined(separator: ", "))\(name)"
    }
    return "ironling has no command \"\(arguments.first ?? "")\"; ironling --help lists them"
}

// Called by the name of a service it is that service, so that an image holds one executable and links to it.
switch CommandLine.arguments.first?.split(separator: "/").last {
case "ironling-gateway": ServiceProcess.run(GatewayService.options) { try await GatewayService.start($0, $1) }
case "ironling-attention": ServiceProcess.run(AttentionService.options) { try await AttentionService.start($0, $1) }
case "ironling-experts": ServiceProcess.run(ExpertsService.options) { try await ExpertsService.start($0, $1) }
case "ironling-sampler": ServiceProcess.run(SamplerService.options) { try await SamplerService.start($0, $1) }
default: break
}
ServiceProcess.prepareSignals()
private let arguments = Array(CommandLine.arguments.dropFirst())
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
