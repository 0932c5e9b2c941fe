package template

import (
	"errors"
	"fmt"
	"math/big"
	"net/netip"

	"go4.org/netipx"
)

var networkFunctions = map[string]function{
	"parseCidr":  {least: 1, most: 1, call: parseCidr},
	"cidrSubnet": {least: 3, most: 3, call: cidrSubnet},
	"cidrHost":   {least: 2, most: 2, call: cidrHost},
}

func argPrefix(args []any) (netip.Prefix, error) {
	s, err := argString(args, 0)
	if err != nil {
		return netip.Prefix{}, err
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, fmt.Errorf("%q is no address range in CIDR notation", clip(s))
	}
	return p.Masked(), nil
}

// parseCidr describes a range. The usable addresses leave out the network address and the
// broadcast address of IPv4.
func parseCidr(_ frame, args []any) (any, error) {
	p, err := argPrefix(args)
	if err != nil {
		return nil, err
	}
	last := netipx.PrefixLastIP(p)
	out := map[string]any{"network": p.Addr().String(), "cidr": number(p.Bits()), "firstUsable": p.Addr().String(), "lastUsable": last.String()}
	ones := netipx.PrefixLastIP(netip.PrefixFrom(p.Addr(), 0))
	out["netmask"] = netip.PrefixFrom(ones, p.Bits()).Masked().Addr().String()
	if p.Addr().Is4() {
		out["broadcast"] = last.String()
		if p.Bits() < 31 {
			out["firstUsable"], out["lastUsable"] = p.Addr().Next().String(), last.Prev().String()
		}
	}
	return out, nil
}

// plus is the address at position n of a range, and whether it is inside the range.
func plus(p netip.Prefix, n *big.Int) (netip.Addr, bool) {
	bytes := p.Addr().AsSlice()
	sum := new(big.Int).Add(new(big.Int).SetBytes(bytes), n)
	if sum.Sign() < 0 || sum.BitLen() > 8*len(bytes) {
		return netip.Addr{}, false
	}
	a, _ := netip.AddrFromSlice(sum.FillBytes(make([]byte, len(bytes))))
	return a, p.Contains(a)
}

// cidrSubnet is the index-th range of a length within a range.
func cidrSubnet(_ frame, args []any) (any, error) {
	p, err := argPrefix(args)
	if err != nil {
		return nil, err
	}
	bits, err := argInt(args, 1)
	if err != nil {
		return nil, err
	}
	index, err := argInt(args, 2)
	if err != nil {
		return nil, err
	}
	if bits < int64(p.Bits()) || bits > int64(p.Addr().BitLen()) || index < 0 {
		return nil, fmt.Errorf("the length %d and the index %d of a part of %s; allowed are lengths from %d to %d and indexes from 0",
			bits, index, p, p.Bits(), p.Addr().BitLen())
	}
	offset := new(big.Int).Lsh(big.NewInt(index), uint(p.Addr().BitLen()-int(bits)))
	a, within := plus(p, offset)
	if !within {
		return nil, fmt.Errorf("%s has no part of length %d with index %d", p, bits, index)
	}
	return netip.PrefixFrom(a, int(bits)).String(), nil
}

// cidrHost is the index-th usable address of a range. As in Azure, index 0 is the first
// address after the network address.
func cidrHost(_ frame, args []any) (any, error) {
	p, err := argPrefix(args)
	if err != nil {
		return nil, err
	}
	index, err := argInt(args, 1)
	if err != nil {
		return nil, err
	}
	if index < 0 {
		return nil, errors.New("the index is negative")
	}
	a, within := plus(p, new(big.Int).Add(big.NewInt(index), big.NewInt(1)))
	if !within {
		return nil, fmt.Errorf("%s has no host with index %d", p, index)
	}
	return a.String(), nil
}
