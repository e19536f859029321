import JSON

/// The ids that a checkpoint puts around a prompt that is not a chat: a beginning of text, an end, or nothing.
public struct TokenFrame: Sendable, Equatable {
    /// Before the text.
    public var prefix: [UInt32] = []
    /// Behind the text.
    public var suffix: [UInt32] = []

    /// `ids` with the frame around them; what they begin or end with already is not put there again.
    public func around(_ ids: [UInt32]) -> [UInt32] {
        let hasPrefix = ids.starts(with: prefix)
        let hasSuffix = ids.count >= suffix.count && ids.suffix(suffix.count).elementsEqual(suffix)
        return (hasPrefix ? [] : prefix) + ids + (hasSuffix ? [] : suffix)
    }
}

/// What post_processor says. Its other purpose, offsets into the text, is none of ours.
extension TokenizerDefinition {
    static func frame(of value: JSONValue?) throws(TokenizerError) -> TokenFrame {
        var frame = TokenFrame()
        for step in try steps(value, "processors", "post_processor") {
            let added: TokenFrame
            switch try type(step, "post_processor") {
            case "ByteLevel": continue
            case "TemplateProcessing": added = try template(step)
            case "BertProcessing", "RobertaProcessing":
                added = TokenFrame(prefix: [try pairID(step, "cls")], suffix: [try pairID(step, "sep")])
            default: throw unsupported("post_processor", step)
            }
            frame = TokenFrame(prefix: added.prefix + frame.prefix, suffix: frame.suffix + added.suffix)
        }
        return frame
    }

    /// `single`, the template of one text: special tokens, the text once, special tokens.
    private static func template(_ step: JSONValue) throws(TokenizerError) -> TokenFrame {
        let field = "post_processor.single"
        guard case .array(let pieces) = step["single"], pieces.count <= 64 else {
            throw malformed(field, "is not a list of at most 64 pieces")
        }
        var frame = TokenFrame()
        var texts = 0
        for piece in pieces {
            if let sequence = piece["Sequence"] {
                guard sequence["id"] == .string("A") else { throw unsupported(field, piece) }
                texts += 1
            } else if let token = piece["SpecialToken"] {
                guard case .string(let name) = token["id"] else { throw malformed(field, "has a token without an id") }
                let ids = try templateIDs(step, name)
                if texts == 0 { frame.prefix += ids } else { frame.suffix += ids }
            } else {
                throw unsupported(field, piece)
            }
        }
        guard texts == 1 else { throw malformed(field, "holds the text \(texts) times, not once") }
        return frame
    }

    private static func templateIDs(_ step: JSONValue, _ name: String) throws(TokenizerError) -> [UInt32] {
        let field = "post_processor.special_tokens[\"\(name.prefix(64))\"].ids"
        guard case .array(let values) = step["special_tokens"]?[name]?["ids"], values.count <= 64 else {
            throw malformed(field, "is not a list of at most 64 ids")
        }
        var ids: [UInt32] = []
        for value in values { ids.append(try id(value, field)) }
        return ids
    }

    private static func pairID(_ step: JSONValue, _ name: String) throws(TokenizerError) -> UInt32 {
        guard case .array(let pair) = step[name], pair.count == 2 else {
            throw malformed("post_processor.\(name)", "is not a token and its id")
        }
        return try id(pair[1], "post_processor.\(name)")
    }
}
