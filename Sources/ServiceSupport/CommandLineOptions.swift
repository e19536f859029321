/// One option of a command: `--name VALUE`, or `--name` alone when it is a switch.
public struct CommandLineOption: Sendable {
    /// Long name without dashes.
    public let name: String
    /// Placeholder of the value in `--help`; nil makes it a switch.
    public let value: String?
    /// One line of help.
    public let help: String
    /// Value when neither the flag nor the environment gives one; shown in `--help`.
    public let fallback: String?
    /// Value when the flag stands alone; nil makes the value mandatory.
    public let implied: String?
    /// True when every argument up to the next option belongs to it; they are joined by spaces.
    public let takesMany: Bool
    /// What `--help` shows in its place, where it depends on the machine.
    public let shownFallback: String?

    /// An option called `--name`, mirrored by the environment variable `IRONLING_NAME`.
    public init(
        _ name: String, value: String? = nil, help: String, fallback: String? = nil, implied: String? = nil,
        takesMany: Bool = false, shownFallback: String? = nil
    ) {
        self.name = name
        self.value = value
        self.help = help
        self.fallback = fallback
        self.implied = implied
        self.takesMany = takesMany
        self.shownFallback = shownFallback ?? fallback
    }

    /// The mirroring environment variable.
    public var environmentName: String {
        "IRONLING_" + name.uppercased().map { $0 == "-" ? "_" : String($0) }.joined()
    }
}

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

    /// A command with its options.
    public init(program: String, summary: String, options: [CommandLineOption]) {
        self.program = program
        self.summary = summary
        self.options = options
    }

    /// The text of `--help`.
    public var help: String {
        let rows = options.map { option in
            (
                "  --\(option.name)" + (option.value.map { " \($0)" } ?? ""),
                option.help + (option.shownFallback.map { " (default \($0))" } ?? "")
                    + (option.implied.map { " (alone: \($0))" } ?? "")
            )
        }
        let width = rows.map(\.0.count).max() ?? 0
        let lines = rows.map { $0.0 + String(repeating: " ", count: width - $0.0.count + 2) + $0.1 }
        return "usage: \(program) [options]\n\n\(summary)\n\n" + lines.joined(separator: "\n")
            + "\n  --help\n\nEach option can also be given as an environment variable, for instance "
            + "\(options.first?.environmentName ?? "IRONLING_…").\n"
    }

    /// Values for every option: flags first, then `IRONLING_*`, then the defaults. Nil when `--help` was asked for.
    public func parse(_ arguments: [String], environment: [String: String]) throws(UsageError) -> OptionValues? {
        var values: [String: String] = [:]
        for option in options {
            values[option.name] = environment[option.environmentName] ?? option.fallback
        }
        var index = 0
        while index < arguments.count {
            let argument = arguments[index]
            index += 1
            if argument == "--help" || argument == "-h" { return nil }
            guard argument.hasPrefix("--") else { throw UsageError("unexpected argument \"\(argument)\"; see --help") }
            let parts = argument.dropFirst(2).split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            guard let option = options.first(where: { $0.name == parts[0] }) else {
                throw UsageError("unknown option --\(parts[0]); see --help")
            }
            if option.value == nil {
                guard parts.count == 1 else { throw UsageError("--\(option.name) takes no value") }
                values[option.name] = "true"
            } else if parts.count == 2 {
                values[option.name] = String(parts[1])
            } else if let implied = option.implied, index == arguments.count || arguments[index].hasPrefix("--") {
                values[option.name] = implied
            } else {
                guard index < arguments.count else {
                    throw UsageError("--\(option.name) needs a value \(option.value ?? "")")
                }
                values[option.name] = arguments[index]
                index += 1
                while option.takesMany, index < arguments.count, !arguments[index].hasPrefix("--") {
                    values[option.name, default: ""] += " " + arguments[index]
                    index += 1
                }
            }
        }
        return OptionValues(values: values)
    }
}

/// Parsed values with typed, checked access.
public struct OptionValues: Sendable {
    private let values: [String: String]

    package init(values: [String: String]) { self.values = values }

    /// The text of an option, nil when absent or empty.
    public func text(_ name: String) -> String? {
        guard let value = values[name], !value.isEmpty else { return nil }
        return value
    }

    /// The same values but for one.
    public func setting(_ name: String, to text: String) -> OptionValues {
        var values = values
        values[name] = text
        return OptionValues(values: values)
    }

    /// The same values, with `text` for an option that has none.
    public func defaulting(_ name: String, to text: String) -> OptionValues {
        self.text(name) == nil ? setting(name, to: text) : self
    }

    /// The text of an option that must be there.
    public func required(_ name: String) throws(UsageError) -> String {
        guard let value = text(name) else { throw UsageError("--\(name) is required; see --help") }
        return value
    }

    /// True when the switch was given.
    public func isOn(_ name: String) -> Bool {
        ["true", "1", "yes", "on"].contains(values[name] ?? "")
    }

    /// A whole number within `range`.
    public func integer(_ name: String, in range: ClosedRange<Int>) throws(UsageError) -> Int {
        let value = try required(name)
        guard let number = Int(value), range.contains(number) else {
            throw UsageError(
                "--\(name) takes a whole number from \(range.lowerBound) to \(range.upperBound), not \"\(value)\"")
        }
        return number
    }

    /// A finite number within `range`.
    public func number(_ name: String, in range: ClosedRange<Double>) throws(UsageError) -> Double {
        let value = try required(name)
        guard let number = Double(value), range.contains(number) else {
            throw UsageError(
                "--\(name) takes a number from \(range.lowerBound) to \(range.upperBound), not \"\(value)\"")
        }
        return number
    }

    /// A number of bytes, with a binary unit behind it or none: 4096, 512MiB, 1.5GiB.
    public func bytes(_ name: String) throws(UsageError) -> Int {
        let value = try required(name)
        let digits = value.prefix { $0.isNumber || $0 == "." }
        let unit = value.dropFirst(digits.count).lowercased()
        let shift = ["": 0, "b": 0, "kib": 10, "mib": 20, "gib": 30, "tib": 40][unit]
        guard let shift, let number = Double(digits), number * Double(1 << shift) < 0x1p52 else {
            throw UsageError("--\(name) takes bytes such as 512MiB or 2GiB, less than 4096TiB, not \"\(value)\"")
        }
        return Int(number * Double(1 << shift))
    }

    /// Comma-separated `host:port` addresses; at least one.
    public func addresses(_ name: String) throws(UsageError) -> [HostPort] {
        var addresses: [HostPort] = []
        for part in try required(name).split(separator: ",") {
            guard let address = HostPort(String(part)) else {
                throw UsageError("--\(name) takes HOST:PORT[,HOST:PORT…], not \"\(part)\"")
            }
            addresses.append(address)
        }
        guard !addresses.isEmpty else { throw UsageError("--\(name) needs at least one HOST:PORT") }
        return addresses
    }
}

/// A host name or address with a TCP port.
public struct HostPort: Sendable, Equatable, CustomStringConvertible {
    /// Name or address.
    public let host: String
    /// TCP port, 1 to 65535.
    public let port: Int

    /// Parses `host:port`; nil when it is anything else.
    public init?(_ text: String) {
        guard let colon = text.lastIndex(of: ":"), let port = Int(text[text.index(after: colon)...]),
            (1...65535).contains(port), colon != text.startIndex
        else { return nil }
        host = String(text[..<colon])
        self.port = port
    }

    /// `host:port`.
    public var description: String { "\(host):\(port)" }
}
