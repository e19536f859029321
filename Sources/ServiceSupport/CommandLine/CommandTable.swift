/// What ships as one release.
public enum IronlingVersion {
    /// The number of the release.
    public static let current = "0.14.0"

    /// What `--version` prints.
    public static func line(_ program: String) -> String { "\(program) \(current)" }
}

/// A command as completion and the manual know it.
public struct CommandEntry: Sendable {
    /// One or two words behind the program's name; empty for a program that is one command.
    public let name: String
    /// Its options.
    public let options: CommandLineOptions

    /// A command.
    public init(_ name: String, _ options: CommandLineOptions) {
        self.name = name
        self.options = options
    }

    /// The words of its name.
    public var words: [String] { name.split(separator: " ").map(String.init) }

    /// The first sentence of what it does.
    public var sentence: String {
        let text = options.summary.replacing("\n", with: " ")
        return String(text.firstRange(of: ". ").map { text[..<$0.lowerBound] + "." } ?? text[...])
    }
}

extension CommandLineOption {
    /// What a shell may offer for its value.
    enum Offer: Equatable {
        case nothing, words([String]), files, folders
    }

    var offer: Offer {
        if !choices.isEmpty { return .words(choices) }
        switch value {
        case "DIR", "NAME|DIR": return .folders
        case "FILE": return .files
        default: return .nothing
        }
    }
}
