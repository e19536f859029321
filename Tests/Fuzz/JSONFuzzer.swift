/// Feeds bytes to the JSON parser; what is accepted must come back from both of its spellings.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzJSON(_ data: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    let bytes = Array(UnsafeBufferPointer(start: data, count: count))
    guard let value = try? JSONValue(parsing: bytes, allowsNonFinite: true) else { return 0 }
    for text in [value.text, value.indentedText] {
        let again = try? JSONValue(parsing: Array(text.utf8), allowsNonFinite: true)
        precondition(again == value, "a value does not come back")
    }
    _ = (value.double, value.integer)
    return 0
}
