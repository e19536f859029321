extension CommandLineOptions {
    /// What every program takes besides its options.
    static let universal = [
        CommandLineOption("help", help: "show this and end"),
        CommandLineOption("version", help: "show the version and end"),
    ]

    /// The first line of `--help`.
    public var usage: String {
        let placeholder = options.first { $0.name == position }?.value
        return "usage: \(program)\(placeholder.map { " [\($0)]" } ?? "") [options]"
    }

    /// A command with no more options shows them without titles.
    private static let untitled = 8

    /// Titles and their options, in the order of the table. One group without a title when there are few.
    public var groups: [(title: String, options: [CommandLineOption])] {
        guard options.count > Self.untitled else { return [("", options + Self.universal)] }
        var groups: [(title: String, options: [CommandLineOption])] = []
        for option in options {
            let title = KnownOptions.title(of: option.name)
            if let index = groups.firstIndex(where: { $0.title == title }) {
                groups[index].options.append(option)
            } else {
                groups.append((title, [option]))
            }
        }
        return groups + [("Help", Self.universal)]
    }

    /// The text of `--help`.
    public var help: String {
        let width = (options + Self.universal).map { $0.flag.count }.max() ?? 0
        let blocks = groups.map { title, options in
            let rows = options.map { option in
                "  \(option.flag)\(String(repeating: " ", count: width - option.flag.count))  \(option.sentence)"
            }
            return (title.isEmpty ? rows : ["\(title):"] + rows).joined(separator: "\n")
        }
        return "\(usage)\n\n\(summary)\n\n" + blocks.joined(separator: "\n\n")
            + (options.first.map { "\n\nEach option can also be given as a variable, such as \($0.environmentName).\n" }
                ?? "\n")
    }
}

extension CommandLineOption {
    /// `--name VALUE`.
    public var flag: String { "--\(name)" + (value.map { " \($0)" } ?? "") }

    /// What it does, with its default.
    public var sentence: String {
        help + (shownFallback.map { " (default \($0))" } ?? "") + (implied.map { " (alone: \($0))" } ?? "")
    }
}
