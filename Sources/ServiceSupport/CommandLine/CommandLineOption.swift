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
    /// What `--help` shows in place of the fallback, where it depends on the machine or on other options.
    public let shownFallback: String?
    /// The values it takes; empty takes any. Those of a placeholder `a|b` unless they are given.
    public let choices: [String]
    /// True when it keeps somebody out: an empty value is refused rather than taken for none.
    public let guards: Bool

    /// An option called `--name`, mirrored by the environment variable `IRONLING_NAME`.
    public init(
        _ name: String, value: String? = nil, help: String, fallback: String? = nil, implied: String? = nil,
        takesMany: Bool = false, shownFallback: String? = nil, choices: [String] = [], guards: Bool = false
    ) {
        self.name = name
        self.value = value
        self.help = help
        self.fallback = fallback
        self.implied = implied
        self.takesMany = takesMany
        self.shownFallback = shownFallback ?? fallback
        // Capitals are placeholders.
        let listed = value.map { $0.contains("|") && $0 == $0.lowercased() ? $0.split(separator: "|") : [] } ?? []
        self.choices = choices.isEmpty ? listed.map(String.init) : choices
        self.guards = guards
    }

    /// The mirroring environment variable.
    public var environmentName: String {
        "IRONLING_" + name.uppercased().map { $0 == "-" ? "_" : String($0) }.joined()
    }

    /// Refuses a value that is none of the choices; `source` is the flag or variable it came from.
    func check(_ text: String, from source: String) throws(UsageError) {
        if value == nil {
            guard OptionValues.truth(text) != nil else {
                throw UsageError("\(source) is a switch: true or false, not \"\(text)\"")
            }
        } else if !choices.isEmpty, !choices.contains(text) {
            let list = choices.dropLast().joined(separator: ", ") + " or " + (choices.last ?? "")
            throw UsageError("\(source) is \(list), not \"\(text)\"\(Spelling.hint(text, among: choices))")
        }
    }
}
