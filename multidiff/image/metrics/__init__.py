"""Metrics of images: FID, KID, precision and recall, PSNR, SSIM."""
