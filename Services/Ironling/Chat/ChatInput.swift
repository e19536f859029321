import Foundation
import ServiceSupport

/// A line of a conversation: a message, or a command to the program.
enum ChatInput: Equatable {
    case message(String)
    case help
    case system(String?)
    case reset
    case save(String)
    case quit
    case nothing
    /// A command that cannot be carried out, with the sentence that says why.
    case refused(String)

    /// The commands, and what they do.
    static let commands: [(name: String, argument: String, help: String)] = [
        ("/help", "", "show this"),
        ("/system", "[TEXT]", "start over with these instructions, or show them"),
        ("/reset", "", "start over"),
        ("/save", "FILE", "write the conversation as JSON"),
        ("/quit", "", "end, as Ctrl-D does"),
    ]

    /// Reads a line. A word after `/` that is no command is one of the message, as a path is, unless it resembles one.
    init(_ line: String) {
        let text = line.trimmingCharacters(in: .whitespaces)
        guard text.hasPrefix("/") else {
            self = text.isEmpty ? .nothing : .message(line)
            return
        }
        let parts = text.split(separator: " ", maxSplits: 1).map(String.init)
        let rest = parts.count > 1 ? parts[1].trimmingCharacters(in: .whitespaces) : ""
        switch parts.first {
        case "/help": self = .help
        case "/system": self = .system(rest.isEmpty ? nil : rest)
        case "/reset": self = .reset
        case "/quit", "/exit": self = .quit
        case "/save": self = rest.isEmpty ? .refused("/save takes the name of a file") : .save(rest)
        default:
            let word = parts.first ?? ""
            guard let near = Spelling.nearest(to: word, among: Self.commands.map(\.name)) else {
                self = .message(line)
                return
            }
            self = .refused("\(word) is no command, did you mean \(near)? /help shows them")
        }
    }

    /// What `/help` shows.
    static var helpText: String {
        let rows = commands.map { command in
            let head = command.argument.isEmpty ? command.name : "\(command.name) \(command.argument)"
            return "  \(head)\(String(repeating: " ", count: max(1, 18 - head.count)))\(command.help)"
        }
        return rows.joined(separator: "\n") + "\n  Ctrl-C            stop the answer; clear the line; twice: end"
    }
}
