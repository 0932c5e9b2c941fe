// Package filewatch tells when files have changed, whoever changes them and however: in place, by a file that takes
// another's name, by a symbolic link, or by a folder that goes and comes back.
//
// What the kernel tells of folders only says when to look. What counts is what a look finds: of each file its identity,
// its size and its times. So nothing is lost when the kernel tells too little, and nothing is reported for files beside.
package filewatch
