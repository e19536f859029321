import EventLoop
import ServiceSupport

/// A subcommand of `ironling`; its name is one or two words.
struct Subcommand: Sendable {
    let name: String
    let options: CommandLineOptions
    let staysUp: Bool
    let run: @Sendable (OptionValues, UVLoop) async throws -> Void

    /// As completion and the manual know it.
    var entry: CommandEntry { CommandEntry(name, options) }
    var words: [String] { entry.words }
}

let subcommands: [Subcommand] = [
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
    Subcommand(name: "inspect", options: InspectCommand.options, staysUp: false) { values, _ in
        try InspectCommand.run(values)
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
    Subcommand(name: "completion", options: CompletionCommand.options, staysUp: false) { values, _ in
        try CompletionCommand.run(values)
    },
    Subcommand(name: "man", options: CompletionCommand.manualOptions, staysUp: false) { _, _ in
        CompletionCommand.printManual()
    },
]

/// The commands, or those that begin with `first` when there are any.
func usage(_ first: String? = nil) -> String {
    let group = subcommands.filter { $0.words.first == first }
    let shown = group.isEmpty ? subcommands : group
    let width = shown.map(\.name.count).max() ?? 0
    let lines = shown.map {
        "  \($0.name)\(String(repeating: " ", count: width - $0.name.count))\t\($0.entry.sentence)"
    }
    return "usage: ironling COMMAND [options]\n\n" + lines.joined(separator: "\n")
        + "\n\nironling COMMAND --help shows the options of a command, ironling man the manual; ironling --version the\n"
        + "version. ironling completion bash|zsh|fish lets a shell complete all of them.\n"
}

/// What is said to arguments that are no command.
func unknown(_ arguments: [String]) -> String {
    let rest = subcommands.filter { $0.words.first == arguments.first }.compactMap(\.words.last)
    guard rest.isEmpty else {
        let name = arguments.count > 1 ? ", not \"\(arguments[1])\"" : ""
        let hint = arguments.count > 1 ? Spelling.hint(arguments[1], among: rest) : ""
        return "ironling \(arguments[0]) is followed by one of \(rest.joined(separator: ", "))\(name)\(hint)"
    }
    let word = arguments.first ?? ""
    let known = subcommands.compactMap(\.words.first)
    return "ironling has no command \"\(word)\"\(Spelling.hint(word, among: known)); ironling --help lists them"
}
