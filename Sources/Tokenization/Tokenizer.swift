import Files
import Foundation
import JSON
import Synchronization

/// Byte-level BPE as described by a tokenizer.json: added tokens first (longest of the leftmost), then the Split pattern,
/// then merges. Normalisers, other models, dropout and what else would change ids are refused when it is read.
///
/// Immutable and shared; calls from several threads do not wait for each other.
public final class Tokenizer: TokenCoding {
    /// Largest tokenizer.json that is read, bytes.
    public static let maximumFileBytes = 256 << 20
    /// Longest text that is encoded, UTF-8 bytes.
    public static let maximumTextBytes = 64 << 20
    /// Working memories kept between calls.
    private static let maximumScratches = 4

    /// One more than the largest id.
    public let vocabularySize: Int
    /// What stands around a prompt that is not a chat.
    public let frame: TokenFrame
    /// Sentences about what the files ask for and does not happen, without changing an id.
    public let notes: [String]
    private let tokens: [[UInt8]?]
    private let idsByBytes: [[UInt8]: UInt32]
    private let byteIDs: [UInt32]
    private let merges: WordTable
    private let ignoresMerges: Bool
    private let pattern: SplitPattern?
    private let addedIDs: [[UInt8]: UInt32]
    private let specialIDs: Set<UInt32>
    /// Matchers to apply in turn, with and without special tokens.
    private let matchers: [AddedTokenMatcher]
    private let ordinaryMatchers: [AddedTokenMatcher]
    /// For what is said in a conversation.
    private let saidMatchers: [AddedTokenMatcher]
    private let scratches = Mutex<[KeptScratch]>([])

    /// Reads a tokenizer.json, and what a tokenizer_config.json beside it changes.
    ///
    /// - Throws: `TokenizerError` that names what in which file cannot be followed.
    public convenience init(contentsOf file: URL) throws(TokenizerError) {
        let beside = file.deletingLastPathComponent().appendingPathComponent("tokenizer_config.json").path
        try self.init(
            parsing: try Self.content(file.path, limit: Self.maximumFileBytes),
            configuration: OpenFile.isThere(beside) ? try Self.content(beside, limit: 16 << 20) : nil)
    }

    /// The tokenizer of a file, nil when there is no such file.
    ///
    /// - Throws: `TokenizerError` that names what in which file cannot be followed.
    public static func ifThere(_ file: URL) throws(TokenizerError) -> Tokenizer? {
        OpenFile.isThere(file.path) ? try Tokenizer(contentsOf: file) : nil
    }

    private static func content(_ path: String, limit: Int) throws(TokenizerError) -> [UInt8] {
        do throws(FileError) { return try OpenFile.content(path, limit: limit) } catch {
            throw TokenizerError(.unreadable, error.description)
        }
    }

    private static func value(_ text: [UInt8]) throws(TokenizerError) -> JSONValue {
        do throws(JSONError) { return try JSONValue(parsing: text, allowsNonFinite: true) } catch {
            throw TokenizerError(.malformed, "tokenizer.json, \(error)")
        }
    }

    /// Builds a tokenizer from the text of a tokenizer.json, and of a tokenizer_config.json if there is one.
    ///
    /// - Throws: `TokenizerError` that names what cannot be followed.
    public init(parsing json: [UInt8], configuration: [UInt8]? = nil) throws(TokenizerError) {
        let definition = try TokenizerDefinition(try Self.value(json))
        tokens = definition.tokens
        vocabularySize = definition.tokens.count
        idsByBytes = definition.idsByBytes
        byteIDs = definition.byteIDs
        merges = definition.merges
        ignoresMerges = definition.ignoresMerges
        addedIDs = Dictionary(definition.added.map { ($0.content, $0.id) }, uniquingKeysWith: { first, _ in first })
        specialIDs = Set(definition.added.lazy.filter(\.isSpecial).map(\.id))
        matchers = Self.matchers(definition.added)
        ordinaryMatchers = Self.matchers(definition.added.filter { !$0.isSpecial })
        let marks = Set(ChatFormat.turnMarks.map { Array($0.utf8) })
        saidMatchers = Self.matchers(definition.added.filter { !$0.isSpecial && !marks.contains($0.content) })
        if let text = definition.pattern {
            pattern = try SplitPattern(text)
        } else {
            pattern = nil
        }
        let ids = (addedIDs, idsByBytes)
        var adjusted = (frame: definition.frame, notes: [String]())
        if let configuration {
            adjusted = try TokenizerConfiguration(configuration).adjusted(definition.frame) {
                ids.0[Array($0.utf8)] ?? ids.1[Array($0.utf8)]
            }
        }
        frame = adjusted.frame
        notes =
            definition.notes.map { "tokenizer.json: \($0)" }
            + adjusted.notes.map { "tokenizer_config.json: \($0)" }
    }

    private static func matchers(_ added: [AddedToken]) -> [AddedTokenMatcher] {
        let groups = [added.filter { !$0.isNormalized }, added.filter(\.isNormalized)]
        return groups.filter { !$0.isEmpty }.map { AddedTokenMatcher($0) }
    }

    /// The ids of a text, at most `maximumTextBytes` long; nothing is added at its ends. With `allowSpecial` false,
    /// special tokens written out in the text are text like any other.
    ///
    /// - Throws: `TokenizerError` when the text is too long or cannot be split.
    public func encode(_ text: String, allowSpecial: Bool) throws(TokenizerError) -> [UInt32] {
        try encode(text, allowSpecial ? matchers : ordinaryMatchers)
    }

    /// The ids of what is said in a conversation: neither special tokens nor a chat format's marks of turns are matched in it.
    ///
    /// - Throws: `TokenizerError` when the text is too long or cannot be split.
    public func encodeSaid(_ text: String) throws(TokenizerError) -> [UInt32] { try encode(text, saidMatchers) }

    private func encode(_ text: String, _ matchers: [AddedTokenMatcher]) throws(TokenizerError) -> [UInt32] {
        let bytes = Array(text.utf8)
        guard bytes.count <= Self.maximumTextBytes else {
            throw TokenizerError(
                .limitExceeded, "The text has \(bytes.count) bytes; the limit is \(Self.maximumTextBytes).")
        }
        let borrowed = try borrowScratch()
        let scratch = borrowed.scratch
        var out: [UInt32] = []
        out.reserveCapacity(bytes.count / 4 + 4)
        try bytes.withUnsafeBufferPointer { (text) throws(TokenizerError) in
            try split(text, matchers[...], scratch, &out)
        }
        scratches.withLock { kept in
            if kept.count < Self.maximumScratches { kept.append(borrowed) }
        }
        return out
    }

    private func split(
        _ text: UnsafeBufferPointer<UInt8>, _ matchers: ArraySlice<AddedTokenMatcher>, _ scratch: EncodingScratch,
        _ out: inout [UInt32]
    ) throws(TokenizerError) {
        guard let matcher = matchers.first else {
            guard let pattern, let place = scratch.split else { return encodePiece(text, scratch, &out) }
            return try pattern.split(text, place) { (piece) throws(TokenizerError) in
                encodePiece(piece, scratch, &out)
            }
        }
        var place = 0
        while let found = matcher.next(text, from: place) {
            if found.start > place {
                let part = UnsafeBufferPointer(rebasing: text[place..<found.start])
                try split(part, matchers.dropFirst(), scratch, &out)
            }
            out.append(found.id)
            place = found.end
        }
        if place < text.count {
            try split(UnsafeBufferPointer(rebasing: text[place...]), matchers.dropFirst(), scratch, &out)
        }
    }

    private func encodePiece(
        _ piece: UnsafeBufferPointer<UInt8>, _ scratch: EncodingScratch, _ out: inout [UInt32]
    ) {
        guard !piece.isEmpty, !scratch.cache.append(piece, into: &out) else { return }
        let start = out.count
        if ignoresMerges, let id = idsByBytes[Array(piece)] {
            out.append(id)
        } else {
            scratch.merger.encode(piece, byteIDs: byteIDs, merges: merges, into: &out)
        }
        scratch.cache.keep(piece, out[start...])
    }

    private func borrowScratch() throws(TokenizerError) -> KeptScratch {
        if let kept = scratches.withLock({ $0.popLast() }) { return kept }
        return KeptScratch(scratch: EncodingScratch(split: try pattern?.makeScratch()))
    }

    /// The bytes an id stands for, nil if it stands for nothing.
    public func tokenBytes(_ id: UInt32) -> [UInt8]? {
        Int(id) < tokens.count ? tokens[Int(id)] : nil
    }

    /// The id that stands for exactly this text: an added token, else an entry of the vocabulary.
    public func id(of text: String) -> UInt32? {
        let bytes = Array(text.utf8)
        return addedIDs[bytes] ?? idsByBytes[bytes]
    }

    /// The id of a token that is matched in text before anything else, special or not.
    public func addedID(of text: String) -> UInt32? { addedIDs[Array(text.utf8)] }

    /// True for the ids of special tokens.
    public func isSpecial(_ id: UInt32) -> Bool { specialIDs.contains(id) }
}

private struct KeptScratch: Sendable {
    // One call has it at a time: it is handed from call to call under the tokenizer's lock.
    nonisolated(unsafe) let scratch: EncodingScratch
}

/// The working memory of one call of `encode` at a time.
final class EncodingScratch {
    let split: SplitScratch?
    var cache = PieceCache()
    var merger = BytePairMerger()

    init(split: SplitScratch?) { self.split = split }
}
