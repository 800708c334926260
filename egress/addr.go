package egress

import "net/netip"

// refused4 are the IPv4 blocks that are not the public internet: IANA's
// special-purpose registry (RFC 6890 and its updates), multicast, the reserved
// block with the broadcast address, and one address that is routable by its
// number but answers with a machine's own metadata.
var refused4 = prefixes(
	"0.0.0.0/8",        // this network
	"10.0.0.0/8",       // private, RFC 1918
	"100.64.0.0/10",    // carrier grade NAT, RFC 6598
	"127.0.0.0/8",      // loopback
	"168.63.129.16/32", // Azure's platform address, seen from every virtual machine there
	"169.254.0.0/16",   // link-local, the clouds' metadata address among them
	"172.16.0.0/12",    // private
	"192.0.0.0/24",     // IETF protocol assignments
	"192.0.2.0/24",     // documentation
	"192.88.99.0/24",   // 6to4 relays, RFC 7526
	"192.168.0.0/16",   // private
	"198.18.0.0/15",    // benchmarks
	"198.51.100.0/24",  // documentation
	"203.0.113.0/24",   // documentation
	"224.0.0.0/4",      // multicast
	"240.0.0.0/4",      // reserved, broadcast
)

// global6 is all of IPv6 that is handed out as global unicast. Whatever lies
// outside (loopback, ULA, link-local, multicast, IPv4-compatible addresses) is
// refused without being named.
var global6 = netip.MustParsePrefix("2000::/3")

// refused6 are the blocks inside global6 that are not the public internet.
var refused6 = prefixes(
	"2001::/23",     // IETF protocol assignments: Teredo, benchmarks, ORCHID
	"2001:db8::/32", // documentation
	"2002::/16",     // 6to4: carries any IPv4 address, private ones too
	"3fff::/20",     // documentation
)

// nat64 is the well-known prefix of RFC 6052: the last 4 bytes are the IPv4
// address that is really reached.
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

func prefixes(s ...string) []netip.Prefix {
	p := make([]netip.Prefix, len(s))
	for i := range s {
		p[i] = netip.MustParsePrefix(s[i])
	}
	return p
}

// Public reports whether a is an address of the public internet. An IPv4
// address inside an IPv6 one (mapped, NAT64) is judged as that IPv4 address. An
// address with a zone is never public.
func Public(a netip.Addr) bool {
	if !a.IsValid() || a.Zone() != "" {
		return false
	}
	a = a.Unmap()
	if nat64.Contains(a) {
		b := a.As16()
		a = netip.AddrFrom4([4]byte(b[12:]))
	}
	if a.Is4() {
		return !in(refused4, a)
	}
	return global6.Contains(a) && !in(refused6, a)
}

func in(blocks []netip.Prefix, a netip.Addr) bool {
	for _, p := range blocks {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
