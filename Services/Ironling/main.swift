import EventLoop
import Foundation
import ServiceSupport

/// A subcommand of `ironling`.
private struct Subcommand: Sendable {
    let name: String
    let options: CommandLineOptions
    let staysUp: Bool
    let run: @Sendable (OptionValues, UVLoop) async throws -> Void
}

private let subcommands = [
    Subcommand(name: "up", options: UpCommand.options, staysUp: true) { try await UpCommand.run($0, $1) },
    Subcommand(name: "generate", options: GenerateCommand.options, staysUp: false) {
        try await GenerateCommand.run($0, $1)
    },
    Subcommand(name: "chat", options: ChatCommand.options, staysUp: false) { try await ChatCommand.run($0, $1) },
    Subcommand(name: "tokenize", options: TokenizeCommand.options, staysUp: false) { values, _ in
        try TokenizeCommand.run(values)
    },
    Subcommand(name: "perplexity", options: PerplexityCommand.options, staysUp: false) { values, _ in
        try PerplexityCommand.run(values)
    },
    Subcommand(name: "quantize", options: QuantizeCommand.options, staysUp: false) { values, _ in
        try QuantizeCommand.run(values)
    },
]

private func usage() -> String {
    "usage: ironling COMMAND [options]\n\n"
        + subcommands.map { "  \($0.name)\t\($0.options.summary)" }.joined(separator: "\n")
        + "\n\nironling COMMAND --help shows the options of a command.\n"
}

ServiceProcess.prepareSignals()
private let arguments = Array(CommandLine.arguments.dropFirst())
private let isHelp = arguments.isEmpty || ["--help", "-h", "help"].contains(arguments[0])
guard !isHelp, let command = subcommands.first(where: { $0.name == arguments[0] }) else {
    if isHelp {
        print(usage())
    } else {
        ServiceProcess.complain("ironling: unknown command \(arguments[0])\n\(usage())")
    }
    exit(isHelp ? 0 : 64)
}
do {
    let environment = ProcessInfo.processInfo.environment
    guard let values = try command.options.parse(Array(arguments.dropFirst()), environment: environment) else {
        print(command.options.help)
        exit(0)
    }
    let loop = UVLoop()
    loop.start()
    Task(executorPreference: loop) {
        do {
            try await command.run(values, loop)
            if !command.staysUp { exit(0) }
        } catch {
            ServiceProcess.complain("\(command.options.program): \(error)")
            exit(error is UsageError ? 64 : 1)
        }
    }
    loop.join()
} catch {
    ServiceProcess.complain("\(command.options.program): \(error)")
    exit(64)
}
