import Files
import Foundation
import JSON

/// The chat template that a checkpoint brings. Conversations are put into the format of the Ling 2.x family here, so that
/// another template is something to be told of.
package struct ChatTemplateFile: Sendable, Equatable {
    /// Name of the file that holds it.
    package let file: String
    /// The template.
    package let text: String

    private static let sizeLimit = 16 << 20

    /// The template of a checkpoint folder: `chat_template.jinja`, else that of `tokenizer_config.json`; nil without one.
    package init?(directory: URL) {
        func content(_ name: String) -> [UInt8]? {
            let path = directory.appendingPathComponent(name).path
            return OpenFile.isThere(path) ? try? OpenFile.content(path, limit: Self.sizeLimit) : nil
        }
        if let bytes = content("chat_template.jinja") {
            (file, text) = ("chat_template.jinja", String(decoding: bytes, as: UTF8.self))
            return
        }
        guard let bytes = content("tokenizer_config.json"),
            let configuration = try? JSONValue(parsing: bytes, allowsNonFinite: true),
            let text = Self.template(configuration["chat_template"])
        else { return nil }
        (file, self.text) = ("tokenizer_config.json", text)
    }

    /// One template, or the first of several with names.
    private static func template(_ value: JSONValue?) -> String? {
        switch value {
        case .string(let text): text
        case .array(let several): several.lazy.compactMap { template($0["template"]) }.first
        default: nil
        }
    }

    /// True when it writes what the built-in format has and others do not: the marks of turns, and the line that says whether
    /// to think.
    package var isBuiltIn: Bool {
        ["<role>", "</role>", "<|role_end|>", "HUMAN", "ASSISTANT", "detailed thinking"].allSatisfy(text.contains)
    }

    /// What to tell who starts a checkpoint with another one.
    package var warning: String {
        "\(file) has a chat template that is not used: conversations are put into the format of the Ling 2.x family. "
            + "Where the two differ, send prompts to /v1/completions"
    }
}
