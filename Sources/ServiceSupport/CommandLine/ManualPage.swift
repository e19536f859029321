/// The manual page of all commands, made from the table of options, in the man macros of roff.
public enum ManualPage {
    /// The page of `ironling` with its commands, and of `programs` that are one command each.
    public static func text(_ commands: [CommandEntry], programs: [CommandLineOptions]) -> String {
        var lines = [
            ".TH IRONLING 1 \"\" \"ironling \(IronlingVersion.current)\" \"Ironling\"", ".SH NAME",
            "ironling \\- serves Ling models with four services, and measures them", ".SH SYNOPSIS",
            ".B ironling", ".I COMMAND", "[options]", ".SH DESCRIPTION",
            "Each option can also be given as an environment variable:", ".B \\-\\-http\\-port", "as",
            ".BR IRONLING_HTTP_PORT .", "An empty variable is an absent one.",
        ]
        for command in commands { lines += section("ironling \(command.name)", command.options) }
        for program in programs { lines += section(program.program, program) }
        lines += [
            ".SH EXIT STATUS", "0 when all went well, 64 for a command line that cannot be used, 1 for anything else.",
            ".SH FILES", ".TP", ".I $XDG_STATE_HOME/ironling/history", "what was typed in",
            ".BR \"ironling chat\" ;", "below", ".I ~/.local/state", "where the variable is not set.",
        ]
        return lines.joined(separator: "\n") + "\n"
    }

    private static func section(_ name: String, _ options: CommandLineOptions) -> [String] {
        var lines = [".SH \"\(escaped(name.uppercased()))\""]
        lines += [escaped(options.usage.replacing("usage: ", with: "")), ".PP"]
        lines += options.summary.split(separator: "\n").map { escaped(String($0)) }
        for (title, group) in options.groups {
            if !title.isEmpty { lines.append(".SS \"\(escaped(title))\"") }
            for option in group {
                let value = option.value.map { " \\fI\(escaped($0))\\fR" } ?? ""
                lines += [".TP", "\\fB\(escaped("--\(option.name)"))\\fR\(value)", escaped(option.sentence)]
            }
        }
        return lines
    }

    /// Text that roff prints as it is.
    private static func escaped(_ text: String) -> String {
        let plain = text.replacing("\\", with: "\\e").replacing("-", with: "\\-").replacing("\"", with: "\\(dq")
        return plain.hasPrefix(".") || plain.hasPrefix("'") ? "\\&\(plain)" : plain
    }
}
