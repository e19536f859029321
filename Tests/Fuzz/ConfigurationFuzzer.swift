import Foundation

/// Feeds bytes to `config.json` and `generation_config.json`. What is accepted must give sizes that can be multiplied.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzConfiguration(_ data: UnsafePointer<UInt8>, _ count: Int) -> CInt {
    let text = Data(bytes: data, count: count)
    let half = text.firstIndex(of: 0) ?? text.endIndex
    let generation = half < text.endIndex ? Data(text[(half + 1)...]) : nil
    guard let c = try? ModelConfiguration(json: Data(text[..<half]), generationJSON: generation) else { return 0 }
    let sizes = [
        c.vocabularySize * c.hiddenSize, c.headCount * c.headWidth * c.headWidth, c.hiddenSize * c.intermediateSize,
        c.headCount * (c.nopeWidth + c.valueWidth) * c.latentWidth,
        c.expertCount * c.expertIntermediateSize * c.hiddenSize,
    ]
    precondition(sizes.allSatisfy { $0 > 0 }, "a size is not positive")
    precondition(c.expertsPerToken <= c.expertCount && c.keptGroupCount <= c.groupCount, "more is kept than there is")
    precondition(c.linearLayers.count + c.fullAttentionLayers.count == c.layerCount, "layers are lost")
    precondition(c.endTokenIDs.allSatisfy { Int($0) < c.vocabularySize }, "an end token is no token")
    return 0
}
