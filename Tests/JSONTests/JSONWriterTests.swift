import Foundation
import JSON
import Testing

@Suite struct JSONWriterTests {
    private func written(_ text: String) -> [UInt8] {
        var writer = JSONWriter()
        writer.value(text)
        return writer.bytes
    }

    @Test func anyTextReadsBackAsItself() throws {
        var texts = (0..<0x180).compactMap { Unicode.Scalar($0).map { "a\(Character($0))b" } }
        texts += ["", "\\\"", "\u{2028}\u{2029}\u{85}", "ÂâÃ\u{C2}", "語🙂👨‍👩‍👧", "\u{FFFD}", "\r\n\t\u{8}\u{C}"]
        for text in texts {
            let bytes = written(text)
            let back = try JSONSerialization.jsonObject(with: Data(bytes), options: .fragmentsAllowed) as? String
            #expect(
                back?.unicodeScalars.elementsEqual(text.unicodeScalars) == true, "\(text.unicodeScalars.map(\.value))")
        }
    }

    /// Clients split event streams at the line breaks of their language, of which there are many kinds.
    @Test func noLineBreakOfAnyConventionIsLeft() {
        let breaks = "\n\r\u{B}\u{C}\u{1C}\u{1D}\u{1E}\u{85}\u{2028}\u{2029}"
        let text = String(decoding: written("x" + breaks + "y"), as: UTF8.self)
        #expect(!text.unicodeScalars.contains { breaks.unicodeScalars.contains($0) })
    }

    @Test func structureAndNumbers() {
        var writer = JSONWriter()
        writer.beginObject()
        writer.name("a")
        writer.value([1, -2].lazy.map { $0 })
        writer.name("b\"" as String)
        writer.beginArray()
        writer.null()
        writer.value(true)
        writer.value(Float(-0.5))
        writer.value(-Float.infinity)
        writer.value(Float.nan)
        writer.beginObject()
        writer.endObject()
        writer.raw(Array("{}".utf8))
        writer.endArray()
        writer.name("c")
        writer.value(Double(0.25))
        writer.endObject()
        #expect(
            String(decoding: writer.bytes, as: UTF8.self)
                == #"{"a":[1,-2],"b\"":[null,true,-0.5,-9999.0,-9999.0,{},{}],"c":0.25}"#)
    }
}
