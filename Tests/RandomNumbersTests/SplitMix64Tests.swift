import RandomNumbers
import Testing

struct SplitMix64Tests {
    /// Numbers that others publish for this seed.
    @Test func itIsThePublishedGenerator() {
        var generator = SplitMix64(seed: 1_234_567)
        let numbers = (0..<3).map { _ in generator.next() }
        #expect(numbers == [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423])
    }

    @Test func mixingIsWhatIsDoneToTheState() {
        var generator = SplitMix64(seed: 5)
        #expect(generator.next() == SplitMix64.mix(5 &+ 0x9E37_79B9_7F4A_7C15) && SplitMix64.mix(0) == 0)
    }
}
