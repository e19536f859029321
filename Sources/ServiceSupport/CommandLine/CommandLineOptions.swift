/// A command line that cannot be used; `description` is the sentence to print.
public struct UsageError: Error, Sendable, CustomStringConvertible {
    /// One sentence that names the option and what it takes.
    public let description: String

    /// A usage error with its sentence.
    public init(_ description: String) { self.description = description }
}

/// A command's options, how they are parsed and how `--help` shows them.
public struct CommandLineOptions: Sendable {
    /// What is typed to run the command.
    public let program: String
    /// One or two sentences on what it does.
    public let summary: String
    /// The options in the order of `--help`.
    public let options: [CommandLineOption]
    /// Name of the option whose value may stand alone, such as the folder of `ironling up DIR`.
    public let position: String?

    /// A command with its options.
    public init(program: String, summary: String, options: [CommandLineOption], position: String? = nil) {
        self.program = program
        self.summary = summary
        self.options = options
        self.position = position
    }

    /// Values for every option: flags first, then `IRONLING_*`, then the defaults. Nil when `--help` was asked for; the
    /// switch `version` is on when `--version` was.
    ///
    /// - Throws: `UsageError` with the option and what it takes.
    public func parse(_ arguments: [String], environment: [String: String]) throws(UsageError) -> OptionValues? {
        guard let given = try flags(arguments) else { return nil }
        let environment = OptionEnvironment(environment)
        var values: [String: String] = [:]
        for option in options {
            if let text = given[option.name] {
                try option.check(text, from: "--\(option.name)")
                values[option.name] = text
            } else if let text = try environment.value(of: option) {
                try option.check(text, from: option.environmentName)
                values[option.name] = text
            } else {
                values[option.name] = option.fallback
            }
        }
        values["version"] = given["version"]
        return OptionValues(values: values)
    }

    /// What the arguments say; nil when `--help` is among them.
    private func flags(_ arguments: [String]) throws(UsageError) -> [String: String]? {
        var given: [String: String] = [:]
        var rest = arguments[...]
        while let argument = rest.popFirst() {
            if argument == "--help" || argument == "-h" { return nil }
            if argument == "--version" {
                given["version"] = "true"
                continue
            }
            guard argument.hasPrefix("--") else {
                try take(argument, &given)
                continue
            }
            let parts = argument.dropFirst(2).split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            let option = try option(String(parts.first ?? ""))
            given[option.name] = try value(of: option, parts.count == 2 ? String(parts[1]) : nil, &rest)
        }
        return given
    }

    private func option(_ name: String) throws(UsageError) -> CommandLineOption {
        guard let option = options.first(where: { $0.name == name }) else {
            throw UsageError(
                "unknown option --\(name)\(Spelling.hint(name, among: options.map(\.name), prefix: "--")); see --help")
        }
        return option
    }

    /// The value of a flag, which stands behind `=`, in the next arguments, or nowhere.
    private func value(
        of option: CommandLineOption, _ attached: String?, _ rest: inout ArraySlice<String>
    ) throws(UsageError) -> String {
        guard let placeholder = option.value else {
            guard attached == nil else { throw UsageError("--\(option.name) takes no value") }
            return "true"
        }
        if attached == nil, let implied = option.implied, rest.first.map({ $0.hasPrefix("--") }) ?? true {
            return implied
        }
        guard var text = attached ?? rest.popFirst() else {
            throw UsageError("--\(option.name) needs a value \(placeholder)")
        }
        guard !text.isEmpty || (!option.guards && option.fallback == nil) else {
            throw UsageError("--\(option.name) is empty, but takes \(placeholder)")
        }
        while option.takesMany, attached == nil, let next = rest.first, !next.hasPrefix("--") {
            text += " " + next
            rest.removeFirst()
        }
        return text
    }

    /// An argument that stands alone.
    private func take(_ argument: String, _ given: inout [String: String]) throws(UsageError) {
        guard let position, !argument.isEmpty else {
            throw UsageError("unexpected argument \"\(argument)\"; see --help")
        }
        guard given[position] == nil else {
            throw UsageError("unexpected argument \"\(argument)\": --\(position) is given already; see --help")
        }
        given[position] = argument
    }
}
