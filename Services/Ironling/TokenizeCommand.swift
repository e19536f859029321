import Checkpoint
import JSON
import ServiceSupport
import Tokenization

/// `ironling tokenize`: JSON lines {"text": …} on standard input, {"ids": […]} on standard output.
enum TokenizeCommand {
    static let options = CommandLineOptions(
        program: "ironling tokenize", summary: "Turns JSON lines {\"text\": …} into JSON lines {\"ids\": […]}.",
        options: [CommandLineOption("model", value: "DIR", help: "checkpoint folder with a tokenizer.json")],
        position: "model")

    static func run(_ values: OptionValues) throws {
        let tokenizer = try Tokenizer(contentsOf: ModelFolder(values.required("model")).file("tokenizer.json"))
        var number = 0
        while let line = readLine(strippingNewline: true) {
            number += 1
            guard !line.isEmpty else { continue }
            guard let object = try? JSONValue(parsing: Array(line.utf8)), case .string(let text) = object["text"] else {
                throw StartError("line \(number) is not a JSON object with a string \"text\"")
            }
            let ids = try tokenizer.encode(text, allowSpecial: true).map(String.init).joined(separator: ",")
            print("{\"ids\":[\(ids)]}")
        }
    }
}
