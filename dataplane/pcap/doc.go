// Package pcap reads captures: pcap of either byte order and time unit, pcapng with any number of
// sections and interfaces, and both compressed by gzip. It reads as a stream and in
// bounded memory, whatever the file claims about itself, and finds the IP packet behind the
// link layer's header.
package pcap
