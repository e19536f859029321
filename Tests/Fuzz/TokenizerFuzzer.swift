/// Feeds bytes to `tokenizer.json`; what is accepted must encode a text to ids that decode to it.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzTokenizer(_ data: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    guard let tokenizer = try? Tokenizer(parsing: Array(UnsafeBufferPointer(start: data, count: count))) else {
        return 0
    }
    let text = "ab abc <x>'s 12 \u{1F600}\n\n zz"
    guard let ids = try? tokenizer.encode(text, allowSpecial: false) else { return 0 }
    precondition(ids.allSatisfy { Int($0) < tokenizer.vocabularySize }, "an id is beyond the vocabulary")
    var detokenizer = IncrementalDetokenizer(tokenizer)
    var parts = ""
    for id in ids { parts += detokenizer.append(id) ?? "" }
    parts += detokenizer.flush()
    precondition(parts.utf8.elementsEqual(tokenizer.decode(ids).utf8), "in parts the text differs")
    return 0
}
