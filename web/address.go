package web

import (
	"net"
	"net/netip"
	"strings"

	"github.com/valyala/fasthttp"

	"bulkhead/fault"
	"bulkhead/tenant"
)

// clientAddr returns the address a request came from: that of the connection, or,
// where a proxy that the operator trusts made it, the last one in X-Forwarded-For
// that is no such proxy. What stands before that, the client may have written
// itself. It is the zero Addr where it is not known.
func (s *Settings) clientAddr(rc *fasthttp.RequestCtx) netip.Addr {
	tcp, ok := rc.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	addr := tcp.AddrPort().Addr().Unmap()
	if !s.trusted(addr) {
		return addr
	}
	all := rc.Request.Header.PeekAll("X-Forwarded-For")
	for i := len(all) - 1; i >= 0; i-- {
		hops := strings.Split(string(all[i]), ",")
		for j := len(hops) - 1; j >= 0; j-- {
			hop, err := netip.ParseAddr(strings.TrimSpace(hops[j]))
			if err != nil {
				return netip.Addr{} // a proxy that writes something else must not be taken for the client
			}
			if hop = hop.Unmap().WithZone(""); !s.trusted(hop) {
				return hop
			}
		}
	}
	return addr
}

func (s *Settings) trusted(addr netip.Addr) bool {
	for _, p := range s.TrustedProxies {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// checkAddress refuses a key that may not be used from where the request came
// from.
func (g *Gateway) checkAddress(rc *fasthttp.RequestCtx, s tenant.Scope) error {
	k := s.Key()
	if k == nil {
		return nil
	}
	if !k.Rules.AllowsIP(g.settings.Load().clientAddr(rc)) {
		return errAddress
	}
	return nil
}

var errAddress = fault.New(fault.Forbidden, "This API key may not be used from your address.").WithCode("ip_not_allowed")

// parseNetworks reads a list of networks, or of single addresses.
func parseNetworks(param string, list []string) ([]netip.Prefix, error) {
	if len(list) > tenant.MaxAllowedIPs {
		return nil, fault.Field(param, "%s has more than %d items.", param, tenant.MaxAllowedIPs)
	}
	out := make([]netip.Prefix, 0, len(list))
	for i, text := range list {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			var a netip.Addr
			if a, err = netip.ParseAddr(text); err == nil && a.Zone() == "" {
				p = netip.PrefixFrom(a, a.BitLen())
			}
		}
		if !p.IsValid() || p.Addr().Is4In6() {
			return nil, fault.Field(param, "%s[%d] must be an address or a network, such as 203.0.113.7 or 2001:db8::/32.", param, i)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}
